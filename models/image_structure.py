"""What an image file is made of, looked through before Pillow makes objects of its parts.

Pillow goes through the parts of a file one by one in Python, and keeps what they say; a few megabytes may hold
millions of them, or a few kilobytes say thousands of times that they hold the same megabyte. Here is counted and
skipped, with bounds far beyond what any encoder writes. Damage is left to whoever decodes.
"""

import struct
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.errors import ImageTooLarge, UndecodableImage

_BMP_MAGIC = b"BM"
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
GIF_MAGIC = (b"GIF87a", b"GIF89a")
# Before the first picture of a GIF, and in all of a PNG.
MOST_PARTS = 20_000
# Packed in a chunk of their own, and unpacked before anything else: texts and a colour profile.
PACKED_CHUNKS = frozenset({b"iCCP", b"zTXt", b"iTXt"})
MOST_PACKED_CHUNKS = 64
# Values of a TIFF's tag that become numbers: the offsets of its strips, its colours.
MOST_NUMBERS = 200_000
# A tile is decoded whole, however little of it is in the image; writers make them of 256 or 512.
LARGEST_TILE_PIXELS = 1024 * 1024
WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH = 256, 257, 322, 323
# Of strips, or of tiles.
BYTE_COUNTS = frozenset({279, 325})
# Bytes of a value, by its type: TIFF 6.0, section 2, and BigTIFF's own.
VALUE_BYTES = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
# Kept as they are.
BYTES_TYPES = frozenset({1, 2, 7})
# By their letters in Python's `struct`; what is negative is no size.
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 16: "Q", 17: "Q"}
# libtiff compares each with all before.
MOST_TAGS = 500


@dataclass(frozen=True)
class _Layout:
    """How a TIFF's directory is written: the place of its offset, and what an entry and its count are."""

    order: str
    offset_at: int
    offset: struct.Struct
    count: struct.Struct
    entry: struct.Struct


_LAYOUTS = {
    magic: _Layout(
        order,
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
        _count(_gif_parts(data, max_pixels), "GIF")
    elif layout := _LAYOUTS.get(data[:4]):
        _check_directory(data, layout, max_pixels)
    elif data.startswith(_READ_IN_TWO_WAYS):
        raise UndecodableImage("a big-endian BigTIFF is not taken; save it as a TIFF of the common kind")


def _count(parts: Iterator[None], kind: str) -> None:
    if sum(1 for _, _ in zip(range(MOST_PARTS + 1), parts, strict=False)) > MOST_PARTS:
        raise UndecodableImage(f"the {kind} is made of over {MOST_PARTS} parts; save it anew")


def _png_chunks(data: bytes) -> Iterator[None]:
    # PNG, section 5.3: length, type, the data, and a checksum.
    place, packed = len(PNG_MAGIC), 0
    while place < len(data) and (kind := data[place + 4 : place + 8]) != b"IEND":
        yield
        packed += kind in PACKED_CHUNKS
        if packed > MOST_PACKED_CHUNKS:
            raise UndecodableImage(
                f"the PNG has over {MOST_PACKED_CHUNKS} packed texts and profiles; save it anew"
            )
        place += 12 + int.from_bytes(data[place : place + 4])


def _gif_parts(data: bytes, max_pixels: int) -> Iterator[None]:
    # GIF89a, section 17 and following: blocks begin with what they are, and consist of pieces up to an empty one.
    place = 13 + _colour_bytes(data, 10)
    while place < len(data) and data[place : place + 1] != b";":
        yield
        if data[place : place + 1] == b",":
            _check_frame(data, place, max_pixels)
            return
        place += 1
        if data[place - 1 : place] == b"!":
            place = yield from _gif_pieces(data, place)


def _gif_pieces(data: bytes, label_at: int) -> Generator[None, None, int]:
    label, place = data[label_at : label_at + 1], label_at + 1
    first = data[place + 1 : place + 1 + data[place]] if place < len(data) else b""
    second_at = place + 1 + len(first)
    is_loop = label == b"\xff" and first.startswith(b"NETSCAPE2.0")
    # Where one is empty that may not be, Pillow takes what follows for more of it.
    if label != b"\xfe" and (not first or (is_loop and data[second_at : second_at + 1] == b"\0")):
        raise UndecodableImage("the GIF has an extension that is empty; save it anew")
    while place < len(data) and data[place]:
        yield
        place += 1 + data[place]
    return place + 1


def _check_frame(data: bytes, place: int, max_pixels: int) -> None:
    # What a frame is to be disposed of by is made as it is opened, of the frame's size and not the screen's.
    left, top, width, height = (int.from_bytes(data[place + at : place + at + 2], "little") for at in (1, 3, 5, 7))
    if (left + width) * (top + height) > max_pixels:
        raise ImageTooLarge(
            f"the GIF's picture takes {left + width} x {top + height} pixels; at most {max_pixels} are allowed"
        )


def _colour_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _check_directory(data: bytes, layout: _Layout, max_pixels: int) -> None:
    held, coded, sizes = 0, 0, dict.fromkeys((WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH), 0)
    for number, entry in enumerate(_entries(data, layout)):
        held += entry.number * VALUE_BYTES.get(entry.kind, 1)
        numbers = entry.number if entry.kind not in BYTES_TYPES else 0
        if held > len(data) or number >= MOST_TAGS or numbers > MOST_NUMBERS:
            raise UndecodableImage("the TIFF's tags hold more than it has, or than is taken; save it anew")
        if entry.tag in sizes:
            sizes[entry.tag] = max((sizes[entry.tag], *entry.integers(data, layout, most=1)))
        elif entry.tag in BYTE_COUNTS:
            coded += sum(entry.integers(data, layout, most=MOST_NUMBERS))
    if coded > len(data):
        raise UndecodableImage("the TIFF is cut short, or its strips or tiles overlap; save it anew")
    across = _tiled(sizes[WIDTH], sizes[TILE_WIDTH])
    pixels = across * _tiled(sizes[LENGTH], sizes[TILE_LENGTH])
    if pixels > max(2 * max_pixels, LARGEST_TILE_PIXELS):
        raise ImageTooLarge(f"the TIFF's tiles have {pixels} pixels; at most {max_pixels} are allowed")


def _tiled(side: int, tile_side: int) -> int:
    """How long the tiles of a side are together; 0 without any."""
    return tile_side * -(-side // tile_side) if tile_side else 0


def _entries(data: bytes, layout: _Layout) -> "Iterator[_Entry]":
    try:
        (place,) = layout.offset.unpack_from(data, layout.offset_at)
        (count,) = layout.count.unpack_from(data, place)
        place += layout.count.size
        for index in range(count):
            yield _Entry(*layout.entry.unpack_from(data, place + index * layout.entry.size))
    except (struct.error, OverflowError):  # It ends before, or says that it is where no file can be.
        return


class _Entry(NamedTuple):
    """A tag: its kind of values, how many, and those that have room, or where they stand."""

    tag: int
    kind: int
    number: int
    value: bytes

    def integers(self, data: bytes, layout: _Layout, most: int) -> Sequence[int]:
        """Return its values, or the first `most` of them.

        Raises:
            UndecodableImage: They are no whole numbers.
        """
        letter = INTEGERS.get(self.kind)
        if letter is None:
            raise UndecodableImage("the TIFF has a size that is no whole number; save it anew")
        numbers = struct.Struct(f"{layout.order}{min(self.number, most)}{letter}")
        values, place = self.value, 0
        if self.number * VALUE_BYTES[self.kind] > len(self.value):  # They stand elsewhere.
            values, (place,) = data, layout.offset.unpack(self.value)
        try:
            return numbers.unpack_from(values, place)
        except (struct.error, OverflowError):
            return (0,)
