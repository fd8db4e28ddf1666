"""Files that would keep a decoder busy, or fill the memory, are refused before that; others are read as ever."""

import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageTooLarge, UndecodableImage
from models.image_structure import begins_as_image, check_structure
from models.preprocessing import decode_image, is_image_file
from tests.bundles import decoding
from tests.faults.memory import peak_mb
from tests.hostile_images import HOSTILE_IMAGES, LONG, TILE_LENGTH, TILE_WIDTH, grey, large_tile, long, tiff

# Of the processor's time: far less than what they would take, and far more than it takes to refuse them.
MOST_S = 0.2
MOST_MB = 16.0


@pytest.mark.parametrize("kind", HOSTILE_IMAGES)
def test_a_hostile_file_costs_next_to_nothing(kind: str) -> None:
    data = HOSTILE_IMAGES[kind][1]()
    before_mb, start_s = peak_mb(anew=True), time.thread_time()
    try:
        decode_image(data, decoding(max_pixels=64_000_000))
    except (UndecodableImage, ImageTooLarge) as error:
        assert str(error)  # noqa: PT017
    assert time.thread_time() - start_s < MOST_S
    assert peak_mb() - before_mb < MOST_MB


def _ways(image: Image.Image) -> list[tuple[str, dict[str, object]]]:
    tiffs: list[dict[str, object]] = [
        {"compression": each} for each in (None, "tiff_lzw", "tiff_deflate", "packbits")
    ]
    ways = [("TIFF", each | {"big_endian": order}) for each in tiffs for order in (False, True)]
    return [*ways, ("PNG", {}), ("GIF", {}), ("BMP", {})] if image.mode != "CMYK" else ways


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_what_encoders_write_is_read_as_ever(mode: str) -> None:
    noise = Image.frombytes("RGB", (500, 300), random.Random(0).randbytes(3 * 500 * 300))  # noqa: S311
    image = noise.convert(mode)
    for kind, options in _ways(image):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        check_structure(stream.getvalue(), 500 * 300)
        assert is_image_file(stream.getvalue(), 500 * 300)
        assert begins_as_image(stream.getvalue())
        found = decode_image(stream.getvalue(), decoding(color="RGB", size=(300, 500)))
        wanted = image.convert("RGB") if kind != "GIF" else Image.open(stream).convert("RGB")
        if mode != "RGBA" and (mode, kind) != ("CMYK", "GIF"):
            assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(wanted)), (kind, options)


@pytest.mark.parametrize("magic", [b"II*\0", b"II\0*"])
@pytest.mark.parametrize("kind", [1, 3, 4, 16])
def test_the_size_of_a_tile_is_read_however_it_is_written(magic: bytes, kind: int) -> None:
    side = 200 if kind == 1 else 2_000
    form = {1: "<B", 3: "<H", 4: "<I", 16: "<Q"}[kind]
    tags = {TILE_WIDTH: (kind, 1, struct.pack(form, side)), TILE_LENGTH: long(50_000)}
    with pytest.raises(ImageTooLarge, match=str(side * 50_000)):
        check_structure(tiff(grey(8, 8) | tags, magic=magic), 1_000)


def test_a_tile_of_the_usual_size_is_taken_whatever_the_limit() -> None:
    check_structure(large_tile(256), 64)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:12],
        lambda data: data[:4] + struct.pack("<I", 2**32 - 1) + data[8:],
        lambda data: b"II+\0" + data[4:],
        lambda data: b"MM\0*" + data[4:],
        lambda data: data[:8] + b"\xff\xff" + data[10:],
    ],
)
def test_a_damaged_directory_is_left_to_whoever_decodes(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UndecodableImage):
        decode_image(damage(tiff(grey(8, 8))), decoding())


def test_a_big_endian_bigtiff_is_refused_by_name() -> None:
    with pytest.raises(UndecodableImage, match="BigTIFF"):
        check_structure(b"MM\0+" + bytes(100), 1_000)


def test_tiles_that_are_no_number_of_pixels_are_refused() -> None:
    with pytest.raises(UndecodableImage, match="whole number"):
        check_structure(tiff(grey(8, 8) | {TILE_WIDTH: (11, 1, bytes(4))}), 1_000)


def test_what_is_half_seen_through_lies_on_white_whatever_its_height() -> None:
    pixels = np.zeros((2_000, 600, 4), np.uint8)
    pixels[..., 3] = np.arange(2_000)[:, None] % 256
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG")
    found = decode_image(stream.getvalue(), decoding(color="L", size=(2_000, 600), max_pixels=2_000_000))[
        0
    ].numpy()
    white = Image.new("RGBA", (600, 2_000), "white")
    whole = Image.alpha_composite(white, Image.fromarray(pixels, "RGBA")).convert("RGB").convert("L")
    assert np.array_equal(found, np.array(whole))


def test_bytes_that_begin_as_an_image_by_chance_are_few() -> None:
    assert not begins_as_image(b"BM" + bytes(range(100)))
    assert not begins_as_image(b"RIFF" + bytes(100))
    assert not begins_as_image(b"")
    assert begins_as_image(Path("docs/images/china.jpg").read_bytes())
    assert LONG == 4
