import random
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from models.errors import ImageTooLarge, UndecodableImage
from models.preprocessing import FORMATS, decode_image
from tests.bundles import decoding
from tests.images import encoded, png

RGB_4 = decoding(color="RGB", size=(4, 4))


def rgb(content: bytes) -> list[int]:
    """The mean colour of a picture, as a model for colour images would be shown it."""
    return decode_image(content, RGB_4).float().mean(dim=(1, 2)).round().int().tolist()


def near(found: list[int], wanted: list[int], by: int = 3) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("format_", FORMATS)
def test_every_named_format_is_decoded(format_: str) -> None:
    picture = Image.new("RGB", (16, 16), (200, 100, 50))
    assert near(rgb(encoded(picture, format_)), [200, 100, 50], by=6)


def test_the_result_is_uint8_of_the_models_shape() -> None:
    grey = decode_image(png(7, (30, 20)), decoding(size=(5, 9)))
    colour = decode_image(png(7), decoding(color="RGB", size=(5, 9)))
    assert (grey.dtype, tuple(grey.shape)) == (torch.uint8, (1, 5, 9))
    assert tuple(colour.shape) == (3, 5, 9)
    assert colour.is_contiguous()


def test_an_image_of_the_right_size_is_taken_pixel_for_pixel() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = encoded(Image.fromarray(pixels), "PNG")
    assert torch.equal(decode_image(content, decoding()), torch.from_numpy(pixels)[None])


def test_grey_alpha_is_laid_on_white() -> None:
    assert near(rgb(encoded(Image.new("LA", (8, 8), (0, 0)), "PNG")), [255, 255, 255])
    assert near(rgb(encoded(Image.new("LA", (8, 8), (10, 255)), "PNG")), [10, 10, 10])


def test_a_half_transparent_colour_is_laid_on_white() -> None:
    content = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG")
    assert near(rgb(content), [255, 127, 127])


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_is_laid_on_white(format_: str) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert near(rgb(encoded(picture, format_)), [10, 20, 30])
    assert near(rgb(encoded(picture, format_, transparency=1)), [255, 255, 255])


def test_a_transparent_colour_of_an_rgb_png_is_laid_on_white() -> None:
    content = encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert near(rgb(content), [255, 255, 255])


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_is_shown_in_its_colours(format_: str) -> None:
    assert near(rgb(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), format_)), [255, 0, 0], by=8)


def test_black_and_white_is_black_and_white() -> None:
    assert near(rgb(encoded(Image.new("1", (8, 8), 1), "PNG")), [255, 255, 255])
    assert near(rgb(encoded(Image.new("1", (8, 8), 0), "TIFF")), [0, 0, 0])


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize(("level", "seen"), [(0, 0), (32768, 128), (65535, 255), (25700, 100), (300, 1)])
def test_sixteen_bit_grey_is_scaled_not_clipped(format_: str, level: int, seen: int) -> None:
    picture = Image.fromarray(np.full((8, 8), level, np.uint16))
    assert rgb(encoded(picture, format_)) == [seen] * 3


def test_big_endian_sixteen_bit_tiff_is_scaled() -> None:
    content = encoded(Image.fromarray(np.full((8, 8), 25700, ">u2")), "TIFF")
    assert rgb(content) == [100] * 3


def sixteen_bit_rgb_png(red: int, green: int, blue: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">HHH", red, green, blue) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colour_is_scaled() -> None:
    assert near(rgb(sixteen_bit_rgb_png(65535, 32768, 0)), [255, 128, 0], by=1)


def test_a_transparent_level_of_a_sixteen_bit_png_is_laid_on_white() -> None:
    content = encoded(Image.fromarray(np.full((8, 8), 300, np.uint16)), "PNG", transparency=300)
    assert rgb(content) == [255] * 3


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    content = encoded(noise(), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    assert decode_image(content, decoding()).shape == (1, 8, 8)
    with pytest.raises(UndecodableImage, match="scans"):
        decode_image(content[:-2] + last_scan * 500 + b"\xff\xd9", decoding())


def test_thirty_two_bit_pixels_have_no_appearance() -> None:
    content = encoded(Image.fromarray(np.full((8, 8), 1.5, np.float32)), "TIFF")
    with pytest.raises(UndecodableImage, match="32 bits a pixel"):
        decode_image(content, decoding())


def half_and_half() -> Image.Image:
    """Black on the left, white on the right."""
    picture = Image.new("L", (8, 8), 255)
    picture.paste(0, (0, 0, 4, 8))
    return picture


@pytest.mark.parametrize(
    ("orientation", "black_side"),
    [(1, "left"), (2, "right"), (3, "right"), (4, "left"), (5, "top"), (6, "top"), (7, "bottom"), (8, "bottom")],
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_undone(format_: str, orientation: int, black_side: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(half_and_half().convert("RGB"), format_, exif=exif)
    image_HW = decode_image(content, decoding())[0].float()
    darkest = {
        "left": image_HW[:, :4],
        "right": image_HW[:, 4:],
        "top": image_HW[:4],
        "bottom": image_HW[4:],
    }
    assert min(darkest, key=lambda side: darkest[side].mean().item()) == black_side


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_ignored_where_the_model_says_so(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = half_and_half().crop((0, 0, 8, 4)).convert("RGB")
    plain, turned = (encoded(picture, format_, **given) for given in ({}, {"exif": exif}))
    lies = decoding(size=(4, 8), exif=False)
    assert torch.equal(decode_image(turned, lies), decode_image(plain, lies))


def test_a_large_photograph_may_be_followed_by_a_film_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # As of 48 megapixels, of which few scans are allowed: as many more are met in the film by chance.
    content = encoded(noise(), "JPEG")
    monkeypatch.setattr("models.preprocessing.MOST_SCANNED_PIXELS", 10 * 64 * 64)
    film = random.Random(0).randbytes(3_000_000)  # noqa: S311
    assert 10 < film.count(b"\xff\xda") < 100
    assert torch.equal(decode_image(content + film, decoding()), decode_image(content, decoding()))


def test_a_side_is_not_longer_than_a_jpegs() -> None:
    with pytest.raises(ImageTooLarge, match="a side"):
        decode_image(encoded(Image.new("L", (65_536, 1)), "PNG"), decoding())


def test_a_photograph_may_be_followed_by_its_film() -> None:
    film = random.Random(0).randbytes(12_000_000)  # noqa: S311
    exif = Image.Exif()
    for orientation in (1, 6):
        exif[0x0112] = orientation
        content = encoded(noise(), "JPEG", exif=exif)
        assert torch.equal(decode_image(content + film, decoding()), decode_image(content, decoding()))


def test_damaged_exif_leaves_the_image_as_it_is() -> None:
    content = encoded(half_and_half(), "JPEG", exif=b"Exif\0\0MM\0*garbage", quality=95)
    assert decode_image(content, decoding())[0, :, 0].float().mean() < 50


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_seen(format_: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    content = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert near(rgb(content), [250, 0, 0], by=8)


def test_a_phones_multi_picture_jpeg_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    assert near(rgb(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])), [250, 0, 0], by=8)


@pytest.mark.parametrize("format_", ["PPM", "ICO", "TGA", "PDF", "EPS", "JPEG2000", "AVIF"])
def test_other_formats_are_refused(format_: str) -> None:
    content = encoded(Image.new("RGB", (32, 32)), format_)
    with pytest.raises(UndecodableImage, match="not a JPEG, PNG, WebP, BMP, GIF or TIFF"):
        decode_image(content, decoding())


@pytest.mark.parametrize("content", [b"", b"x", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(UndecodableImage):
        decode_image(content, decoding())


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


@pytest.mark.parametrize("format_", FORMATS)
def test_an_image_cut_short_is_refused(format_: str) -> None:
    content = encoded(noise(), format_)
    with pytest.raises(UndecodableImage):
        decode_image(content[: len(content) // 2], decoding())


def test_too_many_pixels_are_seen_in_the_header_and_never_decoded() -> None:
    # The header promises 60,000 x 60,000 pixels; there is nothing behind it to decode.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageTooLarge, match="60000 x 60000"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunk + idat, decoding())


@pytest.mark.parametrize("format_", FORMATS)
def test_the_limit_holds_for_every_format(format_: str) -> None:
    content = encoded(Image.new("RGB", (11, 10)), format_)
    with pytest.raises(ImageTooLarge, match="at most 109"):
        decode_image(content, decoding(max_pixels=109))
    decode_image(content, decoding(max_pixels=110))


def test_the_tighter_of_the_two_limits_applies() -> None:
    with pytest.raises(ImageTooLarge, match="at most 63"):
        decode_image(png(0), decoding(), max_pixels=63)
    with pytest.raises(ImageTooLarge, match="at most 60"):
        decode_image(png(0), decoding(max_pixels=60), max_pixels=63)


def test_stretch_ignores_the_aspect_and_keeps_everything() -> None:
    wide = Image.new("L", (80, 8), 255)
    wide.paste(0, (0, 0, 40, 8))
    image_HW = decode_image(encoded(wide, "PNG"), decoding())[0]
    assert image_HW[:, :3].max() < 10
    assert image_HW[:, 5:].min() > 245


def test_crop_keeps_the_aspect_and_cuts_the_centre() -> None:
    wide = Image.new("L", (80, 8), 0)
    wide.paste(255, (36, 0, 44, 8))
    cropped = decode_image(encoded(wide, "PNG"), decoding(fit="crop", shorter_side=8))
    assert cropped.min() > 250


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (160, 64)])
def test_crop_is_scaling_the_whole_and_cutting_the_centre(size: tuple[int, int]) -> None:
    picture = noise(256).resize(size).convert("L")
    scale = 32 / min(size)
    width, height = round(size[0] * scale), round(size[1] * scale)
    whole = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 24) // 2, (height - 24) // 2
    wanted = torch.from_numpy(np.array(whole.crop((left, top, left + 24, top + 24)))).int()
    found = decode_image(encoded(picture, "PNG"), decoding(size=(24, 24), fit="crop", shorter_side=32))
    assert (found[0].int() - wanted).abs().max() <= 1


def test_a_long_strip_is_cropped_without_becoming_huge() -> None:
    strip = decode_image(encoded(Image.new("L", (60_000, 1), 9), "PNG"), decoding(fit="crop", shorter_side=4096))
    assert torch.equal(strip, torch.full_like(strip, 9))


def test_interpolation_is_the_models() -> None:
    content = encoded(noise(), "PNG")
    smooth, sharp = (decode_image(content, decoding(interpolation=name)) for name in ("bilinear", "bicubic"))
    assert not torch.equal(smooth, sharp)


def _variant(content: bytes, cut: int, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content[: max(1, len(content) - cut)])
    for position, bit in flips:
        changed[position % len(changed)] ^= 1 << bit
    return bytes(changed)


harm = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 7)), max_size=6)


@given(st.sampled_from(FORMATS), st.integers(0, 300), harm)
def test_harmed_bytes_decode_or_are_refused_by_name(format_: str, cut: int, flips: list[tuple[int, int]]) -> None:
    content = _variant(encoded(noise(24), format_), cut, flips)
    try:
        decoded: Tensor = decode_image(content, decoding())
    except (UndecodableImage, ImageTooLarge):
        return
    assert (decoded.dtype, tuple(decoded.shape)) == (torch.uint8, (1, 8, 8))


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused_by_name(content: bytes) -> None:
    with pytest.raises((UndecodableImage, ImageTooLarge)):
        decode_image(content, decoding())


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB"]), st.integers(0, 255))
def test_a_plain_image_of_any_size_stays_plain(width: int, height: int, color: str, level: int) -> None:
    for spec in (decoding(color=color), decoding(color=color, fit="crop", shorter_side=9)):
        decoded = decode_image(png(level, (width, height)), spec)
        assert torch.equal(decoded, torch.full_like(decoded, level))
