"""What an image file is made of, looked through before Pillow makes objects of its parts.

Pillow goes through the parts of a file one by one in Python, and keeps what they say; a few megabytes may hold
millions of them, or a few kilobytes say thousands of times that they hold the same megabyte. Here is counted and
skipped, with bounds far beyond what any encoder writes. Damage is left to whoever decodes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from models.errors import ImageTooLarge, UndecodableImage

_BMP_MAGIC = b"BM"
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
GIF_MAGIC = (b"GIF87a", b"GIF89a")
# Before the first picture of a GIF, and in all of a PNG.
MOST_PARTS = 50_000
# Values of a TIFF's tag that become numbers: the offsets of its strips, its colours.
MOST_NUMBERS = 200_000
# A tile is decoded whole, however little of it is in the image; writers make them of 256 or 512.
LARGEST_TILE_PIXELS = 1024 * 1024
TILE_WIDTH, TILE_LENGTH = 322, 323
# Bytes of a value, by its type: TIFF 6.0, section 2, and BigTIFF's own.
VALUE_BYTES = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
# Kept as they are.
BYTES_TYPES = frozenset({1, 2, 7})
INTEGER_TYPES = frozenset({1, 3, 4, 6, 8, 9, 16, 17})
MOST_TAGS = 65_535


@dataclass(frozen=True)
class _Layout:
    """How a TIFF's directory is written: the place of its offset, and what an entry and its count are."""

    offset_at: int
    offset: struct.Struct
    count: struct.Struct
    entry: struct.Struct


_LAYOUTS = {
    magic: _Layout(
        4 if classic else 8,
        struct.Struct(order + ("I" if classic else "Q")),
        struct.Struct(order + ("H" if classic else "Q")),
        struct.Struct(order + ("HHI4s" if classic else "HHQ8s")),
    )
    for magic, order, classic in (
        (b"II*\0", "<", True),
        (b"MM\0*", ">", True),
        # Pillow takes these two as well.
        (b"II\0*", "<", True),
        (b"MM*\0", ">", True),
        (b"II+\0", "<", False),
    )
}
_MAGICS = (b"\xff\xd8\xff", PNG_MAGIC, *GIF_MAGIC, *_LAYOUTS)
# Of these Pillow reads another directory than who decodes them.
_READ_IN_TWO_WAYS = b"MM\0+"


def begins_as_image(data: bytes) -> bool:
    """Whether bytes begin as an image file does; whether it is one shows when it is decoded."""
    if data.startswith(_BMP_MAGIC):
        # Two letters are soon met by chance: there follow the file's size, and that of one of few headers.
        size, header = (int.from_bytes(data[at : at + 4], "little") for at in (2, 14))
        return size in (0, len(data)) and header in _BMP_HEADERS
    return data.startswith(_MAGICS) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")


def check_structure(data: bytes, max_pixels: int) -> None:
    """Refuse a PNG, GIF or TIFF that would cost out of all proportion to read.

    Args:
        data: The whole file.
        max_pixels: An image may have.

    Raises:
        UndecodableImage: It is made of too many parts.
        ImageTooLarge: Its tiles have more pixels than an image may.
    """
    if data.startswith(PNG_MAGIC):
        _count(_png_chunks(data), "PNG")
    elif data.startswith(GIF_MAGIC):
        _count(_gif_parts(data), "GIF")
    elif layout := _LAYOUTS.get(data[:4]):
        _check_directory(data, layout, max_pixels)
    elif data.startswith(_READ_IN_TWO_WAYS):
        raise UndecodableImage("a big-endian BigTIFF is not taken; save it as a TIFF of the common kind")


def _count(parts: Iterator[None], kind: str) -> None:
    if sum(1 for _, _ in zip(range(MOST_PARTS + 1), parts, strict=False)) > MOST_PARTS:
        raise UndecodableImage(f"the {kind} is made of over {MOST_PARTS} parts; save it anew")


def _png_chunks(data: bytes) -> Iterator[None]:
    # PNG, section 5.3: length, type, the data, and a checksum.
    place = len(PNG_MAGIC)
    while place < len(data) and data[place + 4 : place + 8] != b"IEND":
        yield
        place += 12 + int.from_bytes(data[place : place + 4])


def _gif_parts(data: bytes) -> Iterator[None]:
    # GIF89a, section 17 and following: blocks begin with what they are, and consist of pieces up to an empty one.
    place = 13 + _colour_bytes(data, 10)
    while place < len(data):
        yield
        kind = data[place]
        if kind in b",;":
            return
        place += 1
        if kind != ord("!"):  # What belongs nowhere is skipped, as Pillow does, byte by byte.
            continue
        place += 1
        while place < len(data) and data[place]:
            yield
            place += 1 + data[place]
        place += 1


def _colour_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _check_directory(data: bytes, layout: _Layout, max_pixels: int) -> None:
    held, sides = 0, {TILE_WIDTH: 0, TILE_LENGTH: 0}
    for number, (tag, kind, count, value) in enumerate(_entries(data, layout)):
        held += count * VALUE_BYTES.get(kind, 1)
        if held > len(data) or number >= MOST_TAGS or (count > MOST_NUMBERS and kind not in BYTES_TYPES):
            raise UndecodableImage("the TIFF's tags hold more than it has, or than is taken; save it anew")
        if tag in sides:
            sides[tag] = max(sides[tag], _side(data, kind, value, layout))
    pixels = sides[TILE_WIDTH] * sides[TILE_LENGTH]
    if pixels > max(max_pixels, LARGEST_TILE_PIXELS):
        raise ImageTooLarge(f"the TIFF's tiles have {pixels} pixels; at most {max_pixels} are allowed")


def _entries(data: bytes, layout: _Layout) -> Iterator[tuple[int, int, int, bytes]]:
    try:
        (place,) = layout.offset.unpack_from(data, layout.offset_at)
        (count,) = layout.count.unpack_from(data, place)
        place += layout.count.size
        for index in range(count):
            yield layout.entry.unpack_from(data, place + index * layout.entry.size)
    except (struct.error, OverflowError):  # It ends before, or says that it is where no file can be.
        return


def _side(data: bytes, kind: int, value: bytes, layout: _Layout) -> int:
    if kind not in INTEGER_TYPES:
        raise UndecodableImage("the size of the TIFF's tiles is no whole number; save it anew")
    size = VALUE_BYTES[kind]
    order: Literal["little", "big"] = "little" if layout.offset.format.startswith("<") else "big"
    if size > len(value):  # It stands elsewhere.
        place = int.from_bytes(value, order)
        value = data[place : place + size]
    return int.from_bytes(value[:size], order)
