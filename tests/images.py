"""Image files made in memory."""

from io import BytesIO
from typing import Any

from PIL import Image


def png(grey: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG of one grey; `size` is (width, height)."""
    return encoded(Image.new("L", size, grey), "PNG")


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()
