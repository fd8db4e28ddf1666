"""Small image files that cost out of all proportion to read; each is named for what it does."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

# Kinds of a TIFF's values.
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, ROWS, COUNTS = 256, 257, 258, 259, 262, 273, 278, 279
TILE_WIDTH, TILE_LENGTH, TILES, TILE_COUNTS, SAMPLE_FORMAT = 322, 323, 324, 325, 339
DEFLATE, PACKBITS = 8, 32773

Values = tuple[int, int, bytes]  # kind, number of values, and their bytes


def long(*numbers: int) -> Values:
    return LONG, len(numbers), struct.pack(f"<{len(numbers)}I", *numbers)


def tiff(tags: Mapping[int, Values], data: bytes = b"", magic: bytes = b"II*\0") -> bytes:
    """A TIFF of these tags; the data follow them."""
    place = 8 + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for tag, (kind, count, values) in sorted(tags.items()):
        entries += struct.pack("<HHI", tag, kind, count)
        if len(values) <= 4:
            entries += values.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", place + len(beyond))
            beyond += values
    return magic + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beyond + data


def grey(width: int, length: int, bits: int = 8) -> dict[int, Values]:
    return {WIDTH: long(width), LENGTH: long(length), BITS: long(bits), COMPRESSION: long(1), PHOTOMETRIC: long(1)}


def overlapping_strips(number: int = 60, *, counted: bool = False) -> bytes:
    """Far more strips than the image has rows for, each a byte further on than the one before."""
    size, rows = 2_000 * 1_000 // 8, 1_000

    def made(at: int) -> bytes:
        tags = grey(2_000, 2_000, 1) | {STRIPS: long(*range(at, at + number)), ROWS: long(rows)}
        tags |= {COUNTS: long(*[size] * number)} if counted else {}
        return tiff(tags)

    return made(len(made(0))) + bytes(size + number)


def strips_of_bytes(number: int = 150_000) -> bytes:
    """As many offsets as the file has bytes."""
    return tiff(grey(100, 100) | {STRIPS: (BYTE, number, bytes(number)), ROWS: long(1)})


def numbers_in_a_tag(number: int = 1_000_000) -> bytes:
    """A tag that says again and again what one number would."""
    format_ = {SAMPLE_FORMAT: (SHORT, number, b"\1\0" * number)}
    return tiff(grey(8, 8) | {STRIPS: long(8), ROWS: long(8), COUNTS: long(64)} | format_)


def tags_of_the_same_bytes(number: int = 1_000, size: int = 300_000) -> bytes:
    """Each of many tags holds the whole file."""
    first = grey(8, 8) | {STRIPS: long(8), ROWS: long(8), COUNTS: long(64)}
    head = tiff(first)[10 : 10 + 12 * len(first)]
    others = b"".join(struct.pack("<HHII", 20_000 + tag, UNDEFINED, size, 8) for tag in range(number))
    return b"II*\0" + struct.pack("<IH", 8, len(first) + number) + head + others + bytes(4 + size)


def large_tile(side: int = 16_384) -> bytes:
    """A tile of millions of pixels, of which the image is the corner."""
    packed = zlib.compress(bytes(side * side), 9)

    def made(at: int) -> bytes:
        tiles = {TILE_WIDTH: long(side), TILE_LENGTH: long(side), TILES: long(at), TILE_COUNTS: long(len(packed))}
        return tiff(grey(8, 8) | tiles | {COMPRESSION: long(DEFLATE)})

    return made(len(made(0))) + packed


def many_tiles(number: int = 60, side: int = 1_000_000) -> bytes:
    """Tiles of millions of pixels each, all of the same few bytes."""
    packed = zlib.compress(bytes(side * 16), 9)

    def made(at: int) -> bytes:
        tiles = {TILE_WIDTH: long(side), TILE_LENGTH: long(16), TILES: long(*[at] * number)}
        counts = {TILE_COUNTS: long(*[len(packed)] * number), COMPRESSION: long(DEFLATE)}
        return tiff(grey(16, 16 * number) | tiles | counts)

    return made(len(made(0))) + packed


def shared_strips(number: int = 1_000) -> bytes:
    """Strips that all are the same half megabyte, of which all but the last bytes say nothing."""
    coded = b"\x80" * 500_000 + b"\x07abcdefgh"

    def made(at: int) -> bytes:
        strips = {STRIPS: long(*[at] * number), COUNTS: long(*[len(coded)] * number), ROWS: long(1)}
        return tiff(grey(8, number) | strips | {COMPRESSION: long(PACKBITS)})

    return made(len(made(0))) + coded


def unknown_tags(number: int = 4_000) -> bytes:
    """Tags that nobody knows."""
    unknown = {20_000 + index: (BYTE, 1, b"a") for index in range(number)}
    return tiff(grey(8, 8) | {STRIPS: long(8), ROWS: long(8), COUNTS: long(64)} | unknown)


def fractions_in_exif(number: int = 20_000) -> bytes:
    """A picture on its side, with as many fractions beside that."""
    values = random.Random(0).randbytes(8 * number)  # noqa: S311
    exif = tiff({0x0112: (SHORT, 1, b"\6\0"), 0x9000: (RATIONAL, number, values)})
    stream = io.BytesIO()
    Image.new("RGB", (8, 4)).save(stream, "WEBP", exif=b"Exif\0\0" + exif)
    return stream.getvalue()


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG")
    return stream.getvalue()


def jpeg_with(segments: Sequence[bytes]) -> bytes:
    """A JPEG in whose head these stand, each with its marker's second byte first."""
    plain = _jpeg()
    head = b"".join(b"\xff" + each[:1] + struct.pack(">H", len(each) + 1) + each[1:] for each in segments)
    return plain[:2] + head + plain[2:]


def exif_in_pieces(number: int = 40_000, size: int = 10) -> bytes:
    """Each piece is joined to all before."""
    return jpeg_with([b"\xe1Exif\0\0" + bytes(size)] * number)


def comments(number: int = 200_000) -> bytes:
    """Two pieces of Exif leave the file to Pillow, and then there are comments."""
    return jpeg_with([b"\xe1Exif\0\0" + bytes(8)] * 2 + [b"\xfe"] * number)


def fill(number: int = 2_000_000) -> bytes:
    """What may stand before a marker, and then nothing."""
    return b"\xff\xd8" + b"\xff" * number


def segments_of_nothing(number: int = 300_000) -> bytes:
    """Segments that are shorter than their own length."""
    plain = _jpeg()
    return plain[:2] + b"\xff\xfe\0\0" * number + plain[2:]


def ends_that_are_none(number: int = 300_000) -> bytes:
    """The image ends, before it began."""
    plain = _jpeg()
    return plain[:2] + b"\xff\xd9" * number + plain[2:]


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(number: int = 200_000, kind: bytes = b"prVt") -> bytes:
    """A PNG of empty chunks."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(72))) + _chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(kind) * number + pixels


def packed_profiles(number: int = 300) -> bytes:
    """Colour profiles of a megabyte each."""
    profile = _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20), 9))
    plain = chunks(0)
    return plain[:33] + profile * number + plain[33:]


def _gif() -> tuple[bytes, bytes]:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "GIF")
    at = stream.getvalue().rindex(b",\0\0\0\0\x08")
    return stream.getvalue()[:at], stream.getvalue()[at:]


def extensions(number: int = 300_000) -> bytes:
    """A GIF that comes to its picture after as many comments."""
    head, picture = _gif()
    return head + b"!\xfe\x01a\0" * number + picture


def junk(number: int = 1_500_000) -> bytes:
    """A GIF that comes to its picture after bytes that are nothing."""
    head, picture = _gif()
    return head + bytes(number) + picture


def large_frame(side: int = 30_000) -> bytes:
    """A GIF whose first picture is to be replaced by nothing, of its own size and not the screen's."""
    control = b"!\xf9\x04" + bytes([2 << 2, 0, 0, 0, 0])
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\x01\0\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + control + frame


def empty_extensions(number: int = 1_000_000) -> bytes:
    """A GIF with an extension of nothing, behind which a picture is none."""
    head, _ = _gif()
    return head + b"!\xf9\0" + b"," + bytes(43) + b"x\0" + b"!\x01\0\0" * (number // 4)


def runs_of_nothing(number: int = 1_000_000) -> bytes:
    """A small BMP of codes that end lines which are not there."""
    return runs(8)[:-2] + b"\0\0" * number + b"\0\x01"


def runs(side: int = 1_500) -> bytes:
    """A BMP whose runs of pixels are coded."""
    head = struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + head + info + bytes(1024) + b"\x01\x05\0\0" * side + b"\0\x01"


HOSTILE_IMAGES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "overlapping strips": ("image/tiff", overlapping_strips),
    "overlapping strips, counted": ("image/tiff", lambda: overlapping_strips(counted=True)),
    "strips of bytes": ("image/tiff", strips_of_bytes),
    "numbers in a tag": ("image/tiff", numbers_in_a_tag),
    "tags of the same bytes": ("image/tiff", tags_of_the_same_bytes),
    "large tile": ("image/tiff", large_tile),
    "Exif in pieces": ("image/jpeg", exif_in_pieces),
    "comments": ("image/jpeg", comments),
    "chunks": ("image/png", chunks),
    "empty pixels": ("image/png", lambda: chunks(kind=b"IDAT")),
    "extensions": ("image/gif", extensions),
    "junk": ("image/gif", junk),
    "runs": ("image/bmp", runs),
    "many tiles": ("image/tiff", many_tiles),
    "shared strips": ("image/tiff", shared_strips),
    "unknown tags": ("image/tiff", unknown_tags),
    "fractions in Exif": ("image/webp", fractions_in_exif),
    "fill": ("image/jpeg", fill),
    "segments of nothing": ("image/jpeg", segments_of_nothing),
    "ends that are none": ("image/jpeg", ends_that_are_none),
    "packed profiles": ("image/png", packed_profiles),
    "large frame": ("image/gif", large_frame),
    "empty extensions": ("image/gif", empty_extensions),
    "runs of nothing": ("image/bmp", runs_of_nothing),
}
