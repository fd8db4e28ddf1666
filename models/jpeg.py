"""JPEG files of the common kind, decoded by libjpeg-turbo without Pillow's work around it.

The same codec as Pillow's, so the same pixels. What is not plain (oriented, in four colours, lossless, damaged) is
left to Pillow: here that is no error, but None. Axes: H height, W width, C channels.
"""

from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MAGIC = b"\xff\xd8"
# Baseline, extended and progressive, of 8 bits: ITU-T T.81, table B.1.
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
OTHER_FRAMES = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
APP1, START_OF_SCAN, FILL = 0xE1, 0xDA, 0xFF
EXIF = b"Exif\0\0"
COLORSPACES = {1: "GRAY", 3: "RGB"}
# A decoder halves cheaply; the sizes between cost more than the whole.
EIGHTHS = (1, 2, 4)
# How much larger than wanted an image must be left: what is scaled down once more hides how it was before.
SPARE = 2


@dataclass(frozen=True)
class Frame:
    """What a JPEG's header says of its image."""

    height: int
    width: int
    channels: int


def read_frame(data: bytes) -> Frame | None:
    """Read the header of a plain JPEG; None if it is not plain, or none.

    Source: ITU-T T.81, annex B.
    """
    place = len(MAGIC)
    frame = None
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1] if place + 1 < len(data) else 0
        if marker == FILL:
            place += 1
            continue
        size = int.from_bytes(data[place + 2 : place + 4])
        segment = place + 4
        if marker == START_OF_SCAN:
            return frame
        if marker in OTHER_FRAMES or (marker == APP1 and data[segment : segment + len(EXIF)] == EXIF):
            return None
        if marker in PLAIN_FRAMES:
            frame = _frame(data[segment : segment + 6])
        place += 2 + max(2, size)
    return None


def decode(data: bytes, frame: Frame, least_height: int, least_width: int) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG, at half, a quarter or an eighth of its size if that leaves it large enough.

    Args:
        data: The file.
        frame: Its own, as `read_frame` gives it.
        least_height: What the image is scaled down to afterwards; at least twice that is left to it.
        least_width: Likewise.

    Returns:
        uint8 of shape HWC with the frame's channels; None if the file is damaged.
    """
    height, width = frame.height, frame.width
    for eighths in EIGHTHS:
        scaled = (-(-frame.height * eighths // 8), -(-frame.width * eighths // 8))
        if scaled[0] >= SPARE * least_height and scaled[1] >= SPARE * least_width:
            height, width = scaled
            break
    try:
        pixels_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            COLORSPACES[frame.channels],
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
        )
    except ValueError:
        return None
    return pixels_HWC


def _frame(start: bytes) -> Frame | None:
    if len(start) < 6 or start[0] != 8 or start[5] not in COLORSPACES:
        return None
    frame = Frame(int.from_bytes(start[1:3]), int.from_bytes(start[3:5]), start[5])
    return frame if frame.height and frame.width else None
