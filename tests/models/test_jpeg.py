"""Plain JPEGs come out as Pillow gives them; all others are left to Pillow; large ones stay within a tolerance."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models import jpeg
from models.errors import ImageTooLarge, UndecodableImage
from models.manifest import ImageDecoding
from models.preprocessing import decode_image

PHOTOGRAPHS = [Path(__file__).parents[2] / "docs" / "images" / f"{name}.jpg" for name in ("china", "flower")]
GENERATOR = np.random.default_rng(0)
# Levels of 255, after scaling down to the model's size: what decoding at a reduced scale may change on average,
# and in all but one of a hundred values.
MEAN_TOLERANCE = 2.5
NEARLY_ALL_TOLERANCE = 20


def encoded(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def noise(height: int, width: int, *channels: int) -> NDArray[np.uint8]:
    return GENERATOR.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def decoded(data: bytes) -> NDArray[np.uint8] | None:
    frame = jpeg.read_frame(data)
    return jpeg.decode(data, frame, 10_000, 10_000) if frame else None


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    pixels = np.array(Image.open(io.BytesIO(data)))
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"optimize": True}]
)
@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 33, 3), (64, 48, 3), (31, 7)])
def test_a_plain_jpeg_is_what_pillow_makes_of_it(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    data = encoded(noise(*shape), **options)
    frame = jpeg.read_frame(data)
    assert frame is not None
    assert (frame.height, frame.width, frame.channels) == (*shape[:2], 3 if len(shape) == 3 else 1)
    found = decoded(data)
    assert found is not None
    assert np.array_equal(found, by_pillow(data))


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_a_photograph_is_what_pillow_makes_of_it(photograph: Path) -> None:
    data = photograph.read_bytes()
    found = decoded(data)
    assert found is not None
    assert np.array_equal(found, by_pillow(data))


def test_rgb_kept_without_a_change_of_colours_is_what_pillow_makes_of_it() -> None:
    data = encoded(noise(16, 16, 3), keep_rgb=True)
    found = decoded(data)
    assert found is None or np.array_equal(found, by_pillow(data))


def oriented(orientation: int | None = 6, order: str = "II", **options: Any) -> bytes:
    """An image with the metadata that a camera writes, in either order of bytes."""
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[0x010F], exif[0x0131] = "A camera", "Its software"
    if orientation is not None:
        exif[0x0112] = orientation
    return encoded(noise(8, 12, 3), exif=exif.tobytes(), **options)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("orientation", [None, *range(10)])
def test_metadata_matter_only_if_they_turn_the_image(orientation: int | None, order: str) -> None:
    data = oriented(orientation, order)
    assert (jpeg.read_frame(data) is None) == (orientation not in (None, 1))
    assert outcome(data) == by_pillow_alone(data)


def in_four_colours() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 8, 4), "CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(oriented(), id="oriented"),
        pytest.param(in_four_colours(), id="CMYK"),
        pytest.param(b"\xff\xd8", id="nothing"),
        pytest.param(b"\xff\xd8\xff", id="half a marker"),
        pytest.param(b"\xff\xd8" + b"\xff" * 50, id="fill only"),
        pytest.param(encoded(noise(8, 8, 3))[:100], id="half a header"),
        pytest.param(encoded(noise(8, 8, 3)).replace(b"\xff\xc0", b"\xff\xc3"), id="lossless"),
        pytest.param(
            encoded(noise(8, 8, 3)).replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), id="12 bits"
        ),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes) -> None:
    assert jpeg.read_frame(data) is None


def with_a_hidden_frame() -> bytes:
    """Two views of one file: who gives the bare marker a length skips the real frame, and finds a small one."""
    bare = b"\xff\x01"
    comment = b"\xff\xfe" + (400).to_bytes(2) + b"\0" * 398
    real = encoded(noise(64, 64, 3))[2:]
    skipped = int.from_bytes(comment[:2]) + 2
    small = encoded(noise(8, 8, 3))[2:]
    start = b"\xff\xd8" + bare + comment + real
    return start + b"\0" * max(0, 4 + skipped - len(start)) + small


def test_a_file_that_shows_its_readers_different_sizes_is_left_to_pillow() -> None:
    data = with_a_hidden_frame()
    assert jpeg.read_frame(data) is None
    plain = encoded(noise(16, 16, 3))
    assert jpeg.decode(plain, jpeg.Frame(8, 8, 3), 10_000, 10_000) is None


@pytest.mark.parametrize("segment", [b"\xff\xe0\0\2", b"\xff" * 1000 + b"\xe0\0\2"])
def test_a_header_without_end_is_refused_soon(segment: bytes) -> None:
    data = b"\xff\xd8" + segment * 20_000
    decoding = ImageDecoding(color="RGB", size=(8, 8), max_pixels=1000)
    with pytest.raises(UndecodableImage, match="segments"):
        decode_image(data, decoding)


def test_an_image_oriented_by_xmp_only_is_turned_as_pillow_turns_it() -> None:
    packet = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
    whole = encoded(noise(8, 12, 3))
    data = whole[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2) + packet + whole[2:]
    assert jpeg.read_frame(data) is None


def test_an_oriented_image_still_comes_upright() -> None:
    decoding = ImageDecoding(color="RGB", size=(12, 8), max_pixels=1000)
    assert decode_image(oriented(), decoding).shape == (3, 12, 8)


def test_a_damaged_image_is_refused_as_before() -> None:
    data = encoded(noise(64, 64, 3))
    decoding = ImageDecoding(color="RGB", size=(64, 64), max_pixels=10_000)
    assert decoded(data[: len(data) // 2]) is None
    with pytest.raises(UndecodableImage):
        decode_image(data[: len(data) // 2], decoding)


def test_the_pixel_limit_holds_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge):
        decode_image(encoded(noise(64, 64, 3)), ImageDecoding(color="RGB", size=(8, 8), max_pixels=64 * 64 - 1))


def test_grey_and_colour_are_turned_into_each_other_as_pillow_does() -> None:
    for shape, color, mode in (((16, 16, 3), "L", "L"), ((16, 16), "RGB", "RGB")):
        data = encoded(noise(*shape))
        found = decode_image(data, ImageDecoding(color=color, size=(16, 16), max_pixels=1000))
        wanted = np.array(Image.open(io.BytesIO(data)).convert(mode)).reshape(16, 16, -1).transpose(2, 0, 1)
        assert np.array_equal(found.numpy(), wanted)


@pytest.mark.parametrize(
    ("shape", "least", "scaled"),
    [
        # At least twice as large as wanted in both directions is left, and only halves are taken.
        ((1281, 1920), (256, 256), (641, 960)),
        ((1281, 1920), (160, 160), (321, 480)),
        ((1281, 1920), (80, 80), (161, 240)),
        ((1281, 1920), (321, 321), (1281, 1920)),
        ((427, 640), (256, 256), (427, 640)),
        ((100, 4000), (10, 1000), (50, 2000)),
        ((4000, 100), (256, 256), (4000, 100)),
    ],
)
def test_a_large_image_is_decoded_at_a_reduced_scale(
    shape: tuple[int, int], least: tuple[int, int], scaled: tuple[int, int]
) -> None:
    data = encoded(np.zeros((*shape, 3), dtype=np.uint8))
    frame = jpeg.read_frame(data)
    assert frame is not None
    found = jpeg.decode(data, frame, *least)
    assert found is not None
    assert found.shape == (*scaled, 3)


def checks(height: int, width: int, side: int) -> NDArray[np.uint8]:
    grid = np.indices((height, width)).sum(0) // side % 2 * 255
    return np.repeat(grid[:, :, None], 3, axis=2).astype(np.uint8)


def enlarged(path: Path, width: int) -> NDArray[np.uint8]:
    opened = Image.open(path)
    return np.array(opened.resize((width, round(opened.height * width / opened.width)), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(enlarged(PHOTOGRAPHS[0], 1920), id="china, 1920"),
        pytest.param(enlarged(PHOTOGRAPHS[1], 1920), id="flower, 1920"),
        pytest.param(enlarged(PHOTOGRAPHS[0], 4000), id="china, 4000"),
        pytest.param(noise(1200, 1800, 3), id="noise"),
        pytest.param(checks(1200, 1800, 3), id="fine checks"),
        pytest.param(checks(1200, 1800, 16), id="coarse checks"),
        pytest.param(np.tile(np.array([[[0] * 3, [255] * 3]], np.uint8), (1200, 900, 1)), id="stripes"),
    ],
)
def test_a_reduced_scale_changes_pixels_within_the_tolerance(pixels: NDArray[np.uint8]) -> None:
    data = encoded(pixels)
    decoding = ImageDecoding(color="RGB", size=(224, 224), fit="crop", shorter_side=256, max_pixels=10**8)
    exact = decode_image(encoded_losslessly(by_pillow(data)), decoding).numpy().astype(int)
    distance = np.abs(decode_image(data, decoding).numpy().astype(int) - exact)
    assert distance.mean() <= MEAN_TOLERANCE
    assert np.percentile(distance, 99) <= NEARLY_ALL_TOLERANCE


def encoded_losslessly(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


DAMAGED = {
    "baseline": encoded(noise(24, 16, 3)),
    "progressive": encoded(noise(24, 16, 3), progressive=True),
    "upright": oriented(1),
    "turned": oriented(6, "MM"),
    "metadata": oriented(None, quality=50),
}


def by_pillow_alone(data: bytes) -> list[int] | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "read_frame", lambda _: None)
        return outcome(data)


def outcome(data: bytes) -> list[int] | str:
    try:
        return decode_image(data, ImageDecoding(color="RGB", size=(24, 16), max_pixels=100_000)).flatten().tolist()
    except (UndecodableImage, ImageTooLarge):
        # A damaged size may be found too large before what else is wrong is found, or after.
        return "refused"


def test_any_subsampling_is_what_pillow_makes_of_it() -> None:
    data = bytearray(DAMAGED["baseline"])
    first_component = data.index(b"\xff\xc0") + 10
    for factors in range(256):
        data[first_component + 1] = factors
        assert outcome(bytes(data)) == by_pillow_alone(bytes(data)), f"{factors:#x}"


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(DAMAGED)),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_what_pillow_makes_of_it(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(DAMAGED[kind])
    for place, value in changes:
        data[2 + place % (len(data) - 2)] = value
    assert outcome(bytes(data)) == by_pillow_alone(bytes(data))
