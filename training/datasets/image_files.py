"""Images and their labels, read from a user's own files. Axes: N images, C, H, W."""

import hashlib
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ImageTooLarge, UndecodableImage
from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from training.datasets.classes import check_classes, check_two_classes, oddities
from training.datasets.division import divide
from training.datasets.image_listing import ListedImage, Listing, list_images
from training.datasets.image_room import arrange, make_room
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.keyed import Keyed
from training.datasets.reading import Reading, Skipped, listed, telling
from training.datasets.splitting import PARTS, TEST_FRACTION, VALIDATION_FRACTION, Part, check_fractions
from training.errors import DataInvalid

LARGEST_FILE_BYTES = 2**28
MOST_THREADS = 8
# Decoded at a time, so that the images which wait for their place stay few.
CHUNK = 256

NO_ROW = -1

FoundImage = Keyed[ListedImage]


class SeenImage(NamedTuple):
    """A decoded image, uint8 of shape CHW, and the sha256 of its pixels."""

    image_CHW: Tensor
    sha256: bytes


@dataclass
class Decoded:
    """What became of images when they were decoded, by the keys of their files.

    Attributes:
        room_NCHW: The images, each in the row that `row_of` says; there may be rows to spare.
        row_of: By key and label.
        unreadable: Why an image could not be decoded.
        first_alike: The smallest key of those whose pixels are the same.
    """

    room_NCHW: Tensor
    row_of: dict[tuple[bytes, str], int] = field(default_factory=dict)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    first_alike: dict[bytes, bytes] = field(default_factory=dict)


def load(
    data: Path,
    decoding: ImageDecoding,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    test_fraction: float = TEST_FRACTION,
) -> tuple[ImageDataset, Reading]:
    """Read labelled images and split them; files of the same bytes, or decoded pixels, are the same image.

    Args:
        data: A directory of folders named by class, or of train/, validation/ and test/ each holding such; or a
            table of paths, relative to its own folder, and labels. A part that is not there is made out of train.
        decoding: The model's own, as in serving.
        path_column: Of the table.
        label_column: Of the table.
        split_column: Of the table: train, validation or test; None if it has none.
        validation_fraction: Share of the images for the validation part, where that is not given.
        test_fraction: Share of the images for the test part, where that is not given.

    Returns:
        The data set, each part in the order of paths or of the table; and what became of every file.

    Raises:
        DataUnavailable: It cannot be read, or there is no room for it.
        DataInvalid: It is not laid out so, or has too little of a class to train or to test it.
    """
    check_fractions(validation_fraction, test_fraction)
    listing = list_images(data, path_column, label_column, split_column)
    with telling(listing.skipped):
        check_two_classes(data, listing.labels)
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        found, skipped = _identify(listing, pool)
        # What is the same to the last byte is known before it is decoded, and where nearly all will stay.
        nearly = divide(found, validation_fraction, test_fraction)
        decoded = _decode_all([image for part in PARTS for image in nearly.parts[part]], decoding, pool)
    unreadable = decoded.unreadable
    skipped += [Skipped(image.value.where, unreadable[image.key]) for image in found if image.key in unreadable]
    readable = [image for image in found if image.key not in unreadable]
    _check_readable(data, listing, {image.answer for image in readable}, skipped)
    division = divide([_as_seen(image, decoded) for image in readable], validation_fraction, test_fraction)
    parts = _in_parts(division.parts, decoded.room_NCHW, listing.labels)
    reading = division.reading(skipped, oddities(listing.labels))
    with telling(reading.skipped, reading.dropped()):
        check_classes(data, listing.labels, {part: images.labels_N.tolist() for part, images in parts.items()})
    dataset = ImageDataset(listing.labels, parts["train"], parts["validation"], parts["test"], _sha256(readable))
    return dataset, reading


def _identify(listing: Listing, pool: Executor) -> tuple[list[FoundImage], list[Skipped]]:
    found: list[FoundImage] = []
    skipped = list(listing.skipped)
    for image, key in zip(listing.images, pool.map(_key, listing.images), strict=True):
        if isinstance(key, bytes):
            found.append(Keyed(key, image.label, image.given, image))
        else:
            skipped.append(Skipped(image.where, key))
    return found, skipped


def _key(image: ListedImage) -> bytes | str:
    """Return the sha256 of a file, or why it has none."""
    try:
        if not image.file.is_file():
            return "is not a file" if image.file.exists() else "is not there"
        if image.file.stat().st_size > LARGEST_FILE_BYTES:
            return f"is larger than {LARGEST_FILE_BYTES >> 20} MiB"
        with image.file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _decode_all(images: list[FoundImage], decoding: ImageDecoding, pool: Executor) -> Decoded:
    """Decode images into one room, one after the other."""
    decoded = Decoded(make_room(len(images), decoding.shape_CHW))
    pixels_of_key: dict[bytes, bytes] = {}
    key_of_pixels: dict[bytes, bytes] = {}
    for image, seen in _decode(images, decoding, pool):
        if isinstance(seen, str):
            decoded.unreadable[image.key] = seen
            continue
        row = decoded.row_of[image.key, image.answer] = len(decoded.row_of)
        decoded.room_NCHW[row] = seen.image_CHW
        pixels_of_key[image.key] = seen.sha256
        key_of_pixels[seen.sha256] = min(image.key, key_of_pixels.get(seen.sha256, image.key))
    decoded.first_alike = {key: key_of_pixels[pixels] for key, pixels in pixels_of_key.items()}
    return decoded


def _as_seen(image: FoundImage, decoded: Decoded) -> Keyed[int]:
    """Return the image under the key that all of the same pixels share, and where in the room it is."""
    # A file that is in a part that is measured on too was not decoded under another label; it will be dropped.
    row = decoded.row_of.get((image.key, image.answer), NO_ROW)
    return Keyed(decoded.first_alike[image.key], image.answer, image.given, row)


def _in_parts(
    parts: Mapping[Part, list[Keyed[int]]], room_NCHW: Tensor, labels: Sequence[str]
) -> dict[Part, LabelledImages]:
    """Arrange the room part after part, and cut it."""
    index_of = {label: index for index, label in enumerate(labels)}
    arrange(room_NCHW, [image.value for part in PARTS for image in parts[part]])
    cut: dict[Part, LabelledImages] = {}
    end = 0
    for part in PARTS:
        start, end = end, end + len(parts[part])
        labels_N = torch.tensor([index_of[image.answer] for image in parts[part]], dtype=torch.int64)
        cut[part] = LabelledImages(room_NCHW[start:end], labels_N)
    return cut


def _decode(
    images: list[FoundImage], decoding: ImageDecoding, pool: Executor
) -> Iterator[tuple[FoundImage, SeenImage | str]]:
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        yield from zip(chunk, pool.map(partial(_decode_one, decoding=decoding), chunk), strict=True)


def _decode_one(image: FoundImage, decoding: ImageDecoding) -> SeenImage | str:
    try:
        data = image.value.file.read_bytes()
        image_CHW = decode_image(data, decoding)
        return SeenImage(image_CHW, hashlib.sha256(image_CHW.numpy().tobytes()).digest())
    except ImageTooLarge:
        return f"has more than {decoding.max_pixels} pixels"
    except UndecodableImage as error:
        # With its count of bytes, every file would have a reason of its own.
        return str(error).replace(f"the {len(data)} bytes", "the bytes")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _check_readable(data: Path, listing: Listing, readable: Container[str], skipped: list[Skipped]) -> None:
    if lost := [label for label in listing.labels if label not in readable]:
        of_lost = {image.where for image in listing.images if image.label == lost[0]}
        first = next(item for item in skipped if item.where in of_lost)
        raise DataInvalid(
            f"{data}: not one image of {listed([repr(label) for label in lost])} can be read; "
            f"{first.where}: {first.reason}"
        )


def _sha256(images: list[FoundImage]) -> str:
    """Return the sha256 of what was read, wherever it lies."""
    lines = sorted(f"{image.answer}\0{image.given}\0{image.key.hex()}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
