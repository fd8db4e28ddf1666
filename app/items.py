"""What a request asks about, before anything is decoded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import jpeg
from models.errors import UndecodableImage
from models.image_structure import PNG_MAGIC
from models.repository import InputKind


class Item(NamedTuple):
    """One image or text, as it came.

    Attributes:
        base64: Whether its bytes are so encoded.
        array: What its client decoded itself, as the model's graph takes it; `content` is empty then.
    """

    kind: InputKind
    content: bytes
    base64: bool = False
    array: NDArray[np.generic] | None = None


# A JPEG of so few bytes has too few blocks, and a PNG of so few pixels too few rows, to take a millisecond or two.
QUICK_BYTES = 16_384
QUICK_PIXELS = 65_536
# Of nothing but grey a JPEG of few bytes may have any size: in all scans together, ten milliseconds or so.
QUICK_JPEG_PIXELS = 1_500_000
TINY_BYTES = 4_096
TINY_PIXELS = 4_096
# Each passes over the whole image; encoders write a dozen at most.
MOST_TINY_SCANS = 16


def is_tiny(item: Item) -> bool:
    """Whether decoding takes microseconds even if somebody meant it not to: the event loop may wait for it."""
    content = item.content
    if item.array is not None:
        return item.array.nbytes <= TINY_BYTES
    if len(content) > TINY_BYTES or item.base64:
        return False
    if item.kind == "text":
        return True
    # Other formats hold what is unpacked to many times their size.
    if not content.startswith(jpeg.MAGIC) or content.count(jpeg.SCAN) > MOST_TINY_SCANS:
        return False
    return 0 < _pixels(content) <= TINY_PIXELS


def is_quick(item: Item) -> bool:
    """Whether decoding is known to take next to no time, whatever the bytes turn out to be."""
    content = item.content
    if item.array is not None:
        return True
    if len(content) > QUICK_BYTES or item.base64:
        return False
    if item.kind == "text":
        return True
    if content.startswith(jpeg.MAGIC):
        return 0 < _pixels(content) * content.count(jpeg.SCAN) <= QUICK_JPEG_PIXELS
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    return content.startswith(PNG_MAGIC) and width * height <= QUICK_PIXELS


def _pixels(content: bytes) -> int:
    """Return how many pixels a JPEG has; 0 if it is not plain enough to tell."""
    try:
        frame = jpeg.read_frame(content)
    except UndecodableImage:
        return 0
    return 0 if frame is None else frame.width * frame.height
