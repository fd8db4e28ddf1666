"""Images and their labels, read from a user's own files. Axes: N images, C, H, W."""

import hashlib
import os
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.errors import ImageTooLarge, UndecodableImage
from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from training.datasets.classes import check_classes, check_two_classes
from training.datasets.image_listing import ListedImage, Listing, list_images
from training.datasets.image_room import make_room
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.keyed import Keyed, divide
from training.datasets.reading import Reading, Skipped, listed
from training.datasets.splitting import TEST_FRACTION, VALIDATION_FRACTION, Part
from training.errors import DataInvalid

LARGEST_FILE_BYTES = 2**28
MOST_THREADS = 8
# Decoded at a time, so that the images which wait for their place stay few.
CHUNK = 256

FoundImage = Keyed[ListedImage]


def load(
    data: Path,
    decoding: ImageDecoding,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    test_fraction: float = TEST_FRACTION,
) -> tuple[ImageDataset, Reading]:
    """Read labelled images and split them; files of the same bytes are the same image.

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
    listing = list_images(data, path_column, label_column, split_column)
    check_two_classes(data, listing.labels)
    index_of = {label: index for index, label in enumerate(listing.labels)}
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        found, skipped = _identify(listing, pool)
        division = divide(found, validation_fraction, test_fraction)
        parts, unreadable = _decode_all(division.parts, index_of, decoding, pool)
    skipped += [Skipped(image.value.where, unreadable[image.key]) for image in found if image.key in unreadable]
    readable = [image for image in found if image.key not in unreadable]
    _check_readable(data, listing, {image.answer for image in readable}, skipped)
    check_classes(data, listing.labels, {part: images.labels_N.tolist() for part, images in parts.items()})
    # Counted anew: the copies of an unreadable file were skipped, not dropped.
    reading = divide(readable, validation_fraction, test_fraction).reading(skipped)
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


def _decode_all(
    parts: Mapping[Part, list[FoundImage]], index_of: Mapping[str, int], decoding: ImageDecoding, pool: Executor
) -> tuple[dict[Part, LabelledImages], dict[bytes, str]]:
    """Decode every image into one room, part after part.

    Returns:
        The parts, and why an image could not be decoded by its key.
    """
    room_NCHW = make_room(sum(map(len, parts.values())), decoding.shape_CHW)
    decoded: dict[Part, LabelledImages] = {}
    unreadable: dict[bytes, str] = {}
    end = 0
    for part, images in parts.items():
        start, labels = end, []
        for image, image_CHW in _decode(images, decoding, pool):
            if isinstance(image_CHW, str):
                unreadable[image.key] = image_CHW
                continue
            room_NCHW[end] = image_CHW
            labels.append(index_of[image.answer])
            end += 1
        decoded[part] = LabelledImages(room_NCHW[start:end], torch.tensor(labels, dtype=torch.int64))
    return decoded, unreadable


def _decode(
    images: list[FoundImage], decoding: ImageDecoding, pool: Executor
) -> Iterator[tuple[FoundImage, Tensor | str]]:
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        yield from zip(chunk, pool.map(partial(_decode_one, decoding=decoding), chunk), strict=True)


def _decode_one(image: FoundImage, decoding: ImageDecoding) -> Tensor | str:
    try:
        data = image.value.file.read_bytes()
        return decode_image(data, decoding)
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
