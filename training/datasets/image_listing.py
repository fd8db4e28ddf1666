"""Which image files a data set has, and what each shows: from folders named by class, or from a table."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.datasets.keyed import plain
from training.datasets.layout import folders, part_folders, printable, visible
from training.datasets.reading import Skipped, listed
from training.datasets.rows import read_filled
from training.datasets.splitting import Part
from training.errors import DataInvalid, DataUnavailable

PartFolders = list[tuple[Path, Part]] | None


class ListedImage(NamedTuple):
    """A file that should be an image; `given` is None where nothing says which part it is in."""

    where: str
    file: Path
    label: str
    given: Part | None


@dataclass(frozen=True)
class Listing:
    """The files of a data set, before any is opened; there is at least one of every label."""

    labels: tuple[str, ...]
    images: list[ListedImage]
    skipped: list[Skipped]


def list_images(data: Path, path_column: str, label_column: str, split_column: str | None) -> Listing:
    """List a data set's image files.

    Args:
        data: A directory of folders named by class, or of train/, validation/ and test/ each holding such; or a
            table of paths, relative to its own folder, and labels.
        path_column: Of the table.
        label_column: Of the table.
        split_column: Of the table: train, validation or test; None if it has none.

    Raises:
        DataUnavailable: It is not there, or cannot be listed.
        DataInvalid: The table is none, or the directory is not laid out so.
    """
    if not data.exists():
        raise DataUnavailable(f"{data} is not there")
    if not data.is_dir():
        return _from_table(data, path_column, label_column, split_column)
    try:
        return _from_folders(data)
    except OSError as error:
        raise DataUnavailable(f"{error.filename} cannot be listed: {error.strerror}") from error


def _from_table(table: Path, path_column: str, label_column: str, split_column: str | None) -> Listing:
    filled = read_filled(table, (path_column, label_column), split_column)
    images = [
        ListedImage(f"{where}: {path}", table.parent / path, plain(label), given)
        for where, (path, label), given in filled.rows
    ]
    return Listing(_labels(images), images, filled.skipped)


def _from_folders(data: Path) -> Listing:
    images: list[ListedImage] = []
    folders_of: dict[str, list[str]] = {}
    parts = part_folders(data)
    for folder, given in _class_folders(data, parts):
        label = _label(folder)
        folders_of.setdefault(label, []).append(_within(folder, data))
        images += [ListedImage(_within(file, data), file, label, given) for file in _files_below(folder)]
    labels = _labels(images)
    if empty := [folder for label in sorted(set(folders_of) - set(labels)) for folder in folders_of[label]]:
        raise DataInvalid(f"{data}: no file for a class in {listed(empty)}; add images, or remove the folder")
    skipped = [Skipped(_within(file, data), "is in no class folder") for file in _loose(data, parts)]
    return Listing(labels, images, skipped)


def _class_folders(data: Path, parts: PartFolders) -> Iterator[tuple[Path, Part | None]]:
    if parts is None:
        yield from ((folder, None) for folder in folders(data))
        return
    for part_folder, part in parts:
        yield from ((folder, part) for folder in folders(part_folder))


def _loose(data: Path, parts: PartFolders) -> list[Path]:
    # A part's folder may stand in another of its name.
    above = {data, *(each for folder, _ in parts or () for each in (folder, folder.parent))}
    return [path for folder in sorted(above) for path in visible(folder) if not path.is_dir()]


def _files_below(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        # A link to a folder may lead in a circle. It passes as a file, and is told when it is found to be none.
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path


def _label(folder: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataInvalid(f"the name of the folder {os.fsencode(folder)!r} is not UTF-8; rename it") from error
    if not (label := plain(folder.name)):
        raise DataInvalid(f"the folder {os.fspath(folder)!r} has a blank name, which is no label; rename it")
    return label


def _labels(images: list[ListedImage]) -> tuple[str, ...]:
    return tuple(sorted({image.label for image in images}))


def _within(path: Path, data: Path) -> str:
    return printable(path.relative_to(data))
