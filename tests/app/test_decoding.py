import base64
from collections.abc import Callable

import pytest

from app.decoding import decode
from app.errors import ImageTooLarge, InvalidRequest, UndecodableImage
from app.items import Item
from models.preparation import ImagePreparation
from tests.bundles import decoding
from tests.images import png

PREPARATION = ImagePreparation(decoding(), 10_000)


def test_bytes_become_an_example() -> None:
    assert decode(Item("image", png(7)), PREPARATION).shape == (1, 8, 8)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: text[:20] + b"\r\n" + text[20:] + b"\n"])
def test_base64_is_taken_in_one_line_or_wrapped(wrap: Callable[[bytes], bytes]) -> None:
    item = Item("image", wrap(base64.b64encode(png(7))), base64=True)
    assert decode(item, PREPARATION).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (Item("image", b"no image"), UndecodableImage),
        (Item("image", png(0, (200, 100))), ImageTooLarge),
        (Item("image", b"!!!", base64=True), InvalidRequest),
        (Item("image", b"YQ=", base64=True), InvalidRequest),
    ],
)
def test_what_cannot_be_decoded_fails_by_name(item: Item, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode(item, PREPARATION)
