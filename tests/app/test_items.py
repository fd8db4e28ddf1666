import io

import pytest
from PIL import Image

from app.items import Item, is_quick, is_tiny


def jpeg(side: int, **options: bool) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side), 128).save(stream, "JPEG", **options)
    return stream.getvalue()


def cut_after_its_head(content: bytes) -> bytes:
    """A JPEG whose pixels end where they begin: as many of them, in a few hundred bytes."""
    at = content.index(b"\xff\xda")
    return content[: at + 2 + int.from_bytes(content[at + 2 : at + 4])] + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_photograph_is_quick(progressive: bool) -> None:
    content = jpeg(300, progressive=progressive)
    assert is_quick(Item("image", content))
    assert not is_tiny(Item("image", content))


def test_a_few_bytes_of_many_pixels_are_not() -> None:
    content = cut_after_its_head(jpeg(2_000))
    assert len(content) < 1_000
    assert not is_quick(Item("image", content))


def test_what_passes_over_its_pixels_many_times_is_not() -> None:
    assert not is_quick(Item("image", jpeg(600) + b"\xff\xda\0\0" * 50))


def test_what_is_not_plain_is_not() -> None:
    assert not is_quick(Item("image", b"\xff\xd8\xff\xe0" + bytes(100)))
    assert is_quick(Item("text", b"x" * 10_000))
