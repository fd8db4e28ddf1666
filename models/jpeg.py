"""JPEG files of the common kind, decoded by libjpeg-turbo without Pillow's work around it.

The same codec as Pillow's, so the same pixels. What is not plain (oriented, in four colours, lossless, damaged) is
left to Pillow: here that is no error, but None. Axes: H height, W width, C channels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from models.errors import UndecodableImage

MAGIC = b"\xff\xd8"
# Begins a scan; cannot occur within coded data.
SCAN = b"\xff\xda"
# Baseline, extended and progressive, of 8 bits: ITU-T T.81, table B.1.
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
OTHER_FRAMES = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
APP1, START_OF_SCAN, END_OF_IMAGE = 0xE1, 0xDA, 0xD9
# Both may say how the image is to be turned.
EXIF, IN_XMP = b"Exif\0\0", b"Orientation"
ORIENTATION, SHORT, UPRIGHT = 0x0112, 3, 1
BYTE_ORDERS: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
# Markers without a length, which have no place in a header, and what is none.
BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
AFTER_FILL = re.compile(rb"[^\xff]")
# Encoders write a dozen; large colour profiles and previews a few hundred.
MOST_SEGMENTS = 5_000
# What is escaped within coded data, or restarts it, is none that ends it.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
SEARCHED_BYTES = 1024 * 1024
MOST_JUNK_BYTES = 65_536
# A decoder in Python joins them, all anew for each.
MOST_EXIF_SEGMENTS = 20
LEFT_TO_PILLOW = OTHER_FRAMES | BARE
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

    Raises:
        UndecodableImage: Its header has no end that would be worth looking for.

    Source: ITU-T T.81, annex B.
    """
    place = len(MAGIC)
    frame, has_exif = None, False
    for _ in range(MOST_SEGMENTS):
        marker_at = AFTER_FILL.search(data, place)
        if marker_at is None or marker_at.start() == place:
            return None
        place = marker_at.start()
        marker, size = data[place], int.from_bytes(data[place + 1 : place + 3])
        if marker == START_OF_SCAN:
            return frame
        if marker in LEFT_TO_PILLOW or size < 2:
            return None
        if marker == APP1:
            metadata = data[place + 3 : place + 1 + size]
            # A second directory could say otherwise than the first.
            if (has_exif and metadata.startswith(EXIF)) or _may_turn(metadata):
                return None
            has_exif = has_exif or metadata.startswith(EXIF)
        if marker in PLAIN_FRAMES:
            frame = _frame(data[place + 3 : place + 9])
        place += 1 + size
    raise UndecodableImage(f"the JPEG has over {MOST_SEGMENTS} segments before its image")


def count_scans(data: bytes) -> int:
    """Go through a JPEG's segments as a codec does, up to its end, and return how many scans it has.

    Raises:
        UndecodableImage: A decoder in Python would be kept busy by what it is made of.

    Source: ITU-T T.81, annex B.
    """
    place, scans, exif, junk = len(MAGIC), 0, 0, 0
    for _ in range(MOST_SEGMENTS):
        marker_at = _next_marker(data, place)
        if marker_at is None and not scans:
            raise UndecodableImage("the JPEG ends before its image")
        if marker_at is None:
            return scans
        # Between coded data and what follows nothing is amiss.
        junk += 0 if scans else marker_at - 1 - place
        if junk > MOST_JUNK_BYTES:
            raise UndecodableImage("the JPEG has too much between its segments; save it anew")
        marker, place = data[marker_at], marker_at + 1
        if marker == END_OF_IMAGE and scans:
            return scans
        if marker in BARE:
            continue
        scans += marker == START_OF_SCAN
        exif += marker == APP1 and data.startswith(EXIF, place + 2)
        if exif > MOST_EXIF_SEGMENTS:
            raise UndecodableImage(f"the JPEG has over {MOST_EXIF_SEGMENTS} segments of Exif")
        place += max(2, int.from_bytes(data[place : place + 2]))
    raise UndecodableImage(f"the JPEG has over {MOST_SEGMENTS} segments")


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
    height, width = _reduced(frame, SPARE * least_height, SPARE * least_width)
    try:
        # The codec's own view of the header counts: a file may be made to show its readers different ones.
        if simplejpeg.decode_jpeg_header(data)[:2] != (frame.height, frame.width):
            return None
        pixels_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            COLORSPACES[frame.channels],
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
        )
    except MemoryError:
        raise
    except Exception:  # ValueError for most damage, KeyError for a subsampling that it has no name for.
        return None
    return pixels_HWC


def _next_marker(data: bytes, place: int) -> int | None:
    """Return where the next marker's second byte is."""
    # By pieces, between which others get a turn.
    while place < len(data):
        found = MARKER.search(data, place, place + SEARCHED_BYTES)
        if found is not None:
            return found.end() - 1
        place += SEARCHED_BYTES - 1
    return None


def _may_turn(segment: bytes) -> bool:
    """Whether metadata turn the image, or cannot be read well enough to tell."""
    if not segment.startswith(EXIF):
        return IN_XMP in segment
    exif = segment[len(EXIF) :]
    order = BYTE_ORDERS.get(exif[:4])
    if order is None:
        return True
    # Exif 2.3, section 4.6.2: a count, and entries of twelve bytes: tag, type, number of values, value.
    directory = int.from_bytes(exif[4:8], order)
    entries = directory + 2 + 12 * int.from_bytes(exif[directory : directory + 2], order)
    if directory < 8 or entries > len(exif):
        return True
    for place in range(directory + 2, entries, 12):
        tag, kind = (int.from_bytes(exif[at : at + 2], order) for at in (place, place + 2))
        count, value = int.from_bytes(exif[place + 4 : place + 8], order), exif[place + 8 : place + 10]
        if tag == ORIENTATION:
            return (kind, count, int.from_bytes(value, order)) != (SHORT, 1, UPRIGHT)
    return False


def _reduced(frame: Frame, least_height: int, least_width: int) -> tuple[int, int]:
    """Return the least height and width to ask the codec for; zeros ask for the image as it is."""
    for eighths in EIGHTHS:
        height, width = -(-frame.height * eighths // 8), -(-frame.width * eighths // 8)
        if height >= least_height and width >= least_width:
            return height, width
    return 0, 0


def _frame(start: bytes) -> Frame | None:
    if len(start) < 6 or start[0] != 8 or start[5] not in COLORSPACES:
        return None
    frame = Frame(int.from_bytes(start[1:3]), int.from_bytes(start[3:5]), start[5])
    return frame if frame.height and frame.width else None
