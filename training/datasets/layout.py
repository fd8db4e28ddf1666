"""How a directory of images is laid out: in folders named by class, or in folders of parts that hold such."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from training.datasets.reading import listed
from training.datasets.splitting import Part, part_named
from training.errors import DataInvalid

# Of the formats that are decoded. Only to guess at a layout: whether a file is an image, its bytes tell.
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
# By archivers, network drives and file managers.
LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
# What else may stand in the name of a part: `training_set`, `seg_test`, `train2017`, `val_images`.
FILLERS = frozenset(
    {"set", "seg", "images", "image", "imgs", "img", "data", "dataset", "split", "folder", "files"}
)
WORD = re.compile(r"[^\W\d_]+")
# Parts have their classes in common, of which there are two or more; `images` alone may be in every class.
SHARED_BY_PARTS = 2


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds, but for hidden files and what systems leave there, in order."""
    return sorted(path for path in folder.iterdir() if not (path.name.startswith(".") or path.name in LEFT_BEHIND))


def folders(folder: Path) -> list[Path]:
    """Return the folders that a folder holds, in order."""
    return [path for path in visible(folder) if path.is_dir()]


def printable(path: PurePath | str) -> str:
    """Return a path as text, whatever its bytes are: a name that is not UTF-8 could not be printed."""
    return os.fsencode(path).decode(errors="replace")


def part_folders(data: Path) -> list[tuple[Path, Part]] | None:
    """Return the folders of the parts; None where the folders are those of the classes.

    Raises:
        DataInvalid: The folders are neither, or it cannot be told.
    """
    inside = folders(data)
    parts = [(_unwrapped(folder, part), part) for folder in inside if (part := _part_called(folder.name))]
    others = [folder for folder in inside if _part_called(folder.name) is None]
    if len(parts) == 1 and others and _is_class(parts[0][0]):
        parts = []  # A class may well be called train.
    if not parts:
        _check_no_parts(data, inside)
        return None
    if others:
        raise DataInvalid(
            f"{data} holds {_named(parts)}, but other folders too: {_names(others)}; move those away"
        )
    _check_train(data, parts)
    return parts


def _part_called(name: str) -> Part | None:
    """Return the part that a folder's name says it is, and nothing else; None if it says none, or more."""
    words = WORD.findall(name.casefold())
    named = [part for word in words if (part := part_named(word) or part_named(word.removesuffix("set")))]
    others = sum(word not in FILLERS for word in words) - len(named)
    return named[0] if len(named) == 1 and not others else None


def _unwrapped(folder: Path, part: Part) -> Path:
    """Return the folder of a part, or the one within that archives put another around: `test/test`."""
    inside = folders(folder)
    if len(inside) == 1 and _part_called(inside[0].name) == part and not _has_image(folder):
        return _unwrapped(inside[0], part)
    return folder


def _check_train(data: Path, parts: Sequence[tuple[Path, Part]]) -> None:
    counts = Counter(part for _, part in parts)
    if not counts["train"]:
        raise DataInvalid(f"{data} holds {_named(parts)}, but no folder train: there is nothing to train on")
    if twice := next((part for part, count in counts.items() if count > 1), None):
        named = _named([(folder, part) for folder, part in parts if part == twice])
        raise DataInvalid(f"{data}: {named} are all names of the {twice} part; keep one of the folders")


def _check_no_parts(data: Path, inside: Sequence[Path]) -> None:
    """Refuse parts by other names, which would become the classes: the folders in them are the same."""
    if any(_has_image(folder) for folder in inside):
        return
    counts = Counter(below.name for folder in inside for below in folders(folder))
    shared = sorted(name for name, count in counts.items() if count > 1)
    if len(shared) >= SHARED_BY_PARTS:
        held = listed([printable(name) for name in shared])
        if all(_part_called(name) for name in shared):
            raise DataInvalid(
                f"{data}: {held} stand within the classes {_names(inside)}; it is to be the other way round"
            )
        raise DataInvalid(
            f"{data}: {_names(inside)} look like parts, not classes: several hold {held}; "
            "name them train, validation and test; or, if they are classes, list the files in a table of paths"
        )


def _is_class(folder: Path) -> bool:
    return _has_image(folder) or not folders(folder)


def _has_image(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_ENDINGS for path in visible(folder))


def _named(parts: Sequence[tuple[Path, Part]]) -> str:
    return _names([folder for folder, _ in parts])


def _names(inside: Sequence[Path]) -> str:
    return listed([printable(folder.name) for folder in inside])
