"""The sample of a model that was trained elsewhere: pictures like those that it will be asked."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from models.errors import ExampleError
from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from training.datasets.image_files import LARGEST_FILE_BYTES
from training.datasets.keyed import plain
from training.datasets.layout import folders, visible
from training.datasets.reading import listed
from training.errors import DataInvalid, DataUnavailable
from training.optimizing.sample import MOST_TO_QUANTIZE, Sample
from training.progress import Progress
from training.randomness import derived_seed

# More pictures say little more, and all are held in memory.
MOST_PICTURES = 3000
NO_LABEL = -1


def of_pictures(folder: Path, decoding: ImageDecoding, labels: tuple[str, ...], progress: Progress) -> Sample:
    """Return the pictures below a folder, of which a half, or 300, are to quantize by, and the others to judge by.

    What a picture is for follows from the pictures' names alone; copies of one count once.

    Args:
        folder: Of pictures, or of folders named by label.
        decoding: The model's.
        labels: The model's.
        progress: Told of what cannot be read.

    Raises:
        DataUnavailable: It is not there.
        DataInvalid: It has folders that are no labels, or too few pictures.
    """
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is not a folder")
    index_of = _indices(folder, labels)
    quantize: list[Tensor] = []
    judge: list[tuple[Tensor, int]] = []
    seen: set[bytes] = set()
    for file in _some_files(folder):
        try:
            digest, example = _read(file, decoding)
        except (ExampleError, OSError) as error:
            progress.say(f"skipped: {file}: {error}")
            continue
        if digest in seen:
            continue
        seen.add(digest)
        if len(seen) % 2 and len(quantize) < MOST_TO_QUANTIZE:
            quantize.append(example)
        else:
            judge.append((example, index_of.get(file.relative_to(folder).parts[0], NO_LABEL)))
    known = [index for _, index in judge] if index_of else None
    return Sample(quantize, [example for example, _ in judge], known)


def _indices(folder: Path, labels: Sequence[str]) -> Mapping[str, int]:
    """Return the label of each folder in a folder, as an index; nothing if there are only pictures."""
    index_of = {label: index for index, label in enumerate(labels)}
    found = {each.name: index_of.get(plain(each.name), NO_LABEL) for each in folders(folder)}
    if strange := [name for name, index in found.items() if index == NO_LABEL]:
        raise DataInvalid(
            f"{folder}: {listed(strange)} are none of the model's labels; put pictures whose label is not known "
            "into the folder itself"
        )
    if found and any(path.is_file() for path in visible(folder)):
        raise DataInvalid(f"{folder} has pictures in folders named by label and others beside them; move either")
    return found


def _some_files(folder: Path) -> list[Path]:
    """Return the files below a folder, or so many of them as are wanted, in an order that their names decide."""
    files = [file for each in (folder, *folders(folder)) for file in _files_of(each, deep=each != folder)]
    return sorted(files, key=lambda file: derived_seed(file.relative_to(folder).as_posix()))[:MOST_PICTURES]


def _files_of(folder: Path, *, deep: bool) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_file():
            yield path
        # A link to a folder may lead in a circle.
        elif deep and path.is_dir() and not path.is_symlink():
            yield from _files_of(path, deep=True)


def _read(file: Path, decoding: ImageDecoding) -> tuple[bytes, Tensor]:
    """Return the sha256 of a picture's pixels, and these."""
    if file.stat().st_size > LARGEST_FILE_BYTES:
        raise OSError(f"is larger than {LARGEST_FILE_BYTES >> 20} MiB")
    example_CHW = decode_image(file.read_bytes(), decoding)
    return hashlib.sha256(example_CHW.numpy().tobytes()).digest(), example_CHW
