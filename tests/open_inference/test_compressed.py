"""Bodies that come compressed: answered as plain ones, and refused if they are no gzip or unpack to too much."""

import gzip
import json
import zlib
from collections.abc import Callable
from functools import cache

import httpx
import pytest

from tests.open_inference.target import Target, outputs, same

# Servers that have a limit have a lower one.
BOMB_MIB = 128


def ask(target: Target, body: bytes) -> httpx.Response:
    return target.infer_text(body, **{"Content-Encoding": "gzip"})


def text(target: Target) -> bytes:
    return json.dumps(target.request(2)).encode()


@cache
def bomb() -> bytes:
    """Nothing but spaces: whoever unpacks all of it finds no request in it."""
    packing = zlib.compressobj(wbits=31)
    spaces = b" " * 1024**2
    return b"".join([packing.compress(spaces) for _ in range(BOMB_MIB)]) + packing.flush()


@pytest.fixture(autouse=True)
def gzip_is_taken(target: Target) -> None:
    """HTTP does not ask it of a server."""
    if not target.own and ask(target, gzip.compress(text(target))).status_code != 200:
        pytest.skip("the server takes no gzip")


def test_a_compressed_request_is_answered_as_a_plain_one(target: Target) -> None:
    assert same(outputs(ask(target, gzip.compress(text(target)))), outputs(target.infer(target.request(2))))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(gzip.decompress, id="plain"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda packed: packed[:-9], id="cut within its data"),
        pytest.param(lambda packed: packed[:20], id="cut at its beginning"),
        pytest.param(lambda packed: packed[:-8] + bytes(8), id="another checksum"),
        pytest.param(lambda packed: b"\0" + packed, id="shifted"),
    ],
)
def test_what_is_no_whole_gzip_is_refused(target: Target, change: Callable[[bytes], bytes]) -> None:
    message = target.refused(ask(target, change(gzip.compress(text(target)))))
    assert "gzip" in message or not target.own


def test_a_body_that_unpacks_to_too_much_is_refused(target: Target) -> None:
    assert len(bomb()) < 1024**2
    target.refused(ask(target, bomb()), 413)
