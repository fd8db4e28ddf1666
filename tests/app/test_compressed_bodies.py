"""Bodies that come compressed are unpacked within the limits of a body, and hold no more memory than they are."""

import gzip
import resource
import socket
import zlib
from collections.abc import Callable

import httpx
import pytest

from models.repository import Repository
from tests.images import png
from tests.servers import Running, until

Serve = Callable[..., Running]
GZIP = {"Content-Encoding": "gzip", "Content-Type": "image/png"}


@pytest.fixture
def client(shades: Repository, serve: Serve) -> httpx.Client:
    return serve(max_body_bytes=1_000_000).until_ready().client


def label(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    told: str = response.json()["predictions"][0]["label"]
    return told


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_may_come_in_any_pieces(
    client: httpx.Client, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "image/png"}
    # More than what is unpacked at a time, and by no whole number of it.
    picture = png(250, (200, 200)) + bytes(300_001)
    assert label(client.post("/predict", content=compress(picture), headers=headers)) == "light"
    chunks = (compress(picture)[at : at + 3] for at in range(0, len(compress(picture)), 3))
    assert label(client.post("/predict", content=chunks, headers=headers)) == "light"


def test_one_that_hardly_gets_smaller_is_unpacked_too(client: httpx.Client) -> None:
    # Its compressed bytes are read in several pieces.
    picture = png(250) + bytes(range(256)) * 2_000
    assert label(client.post("/predict", content=gzip.compress(picture, compresslevel=0), headers=GZIP)) == "light"


def test_gzip_files_in_a_row_are_one_body(client: httpx.Client) -> None:
    picture = png(250)
    body = gzip.compress(picture[:20]) + gzip.compress(b"") + gzip.compress(picture[20:])
    assert label(client.post("/predict", content=body, headers=GZIP | {"Content-Encoding": "GZIP"})) == "light"


def test_files_in_a_row_that_hold_nothing_are_soon_too_many(client: httpx.Client) -> None:
    response = client.post("/predict", content=gzip.compress(b"") * 20_000, headers=GZIP)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "10000 gzip files" in response.json()["detail"]


def test_a_bomb_is_refused_without_its_memory(client: httpx.Client) -> None:
    bomb = gzip.compress(bytes(900_000_000))
    assert len(bomb) < 1_000_000
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = client.post("/predict", content=bomb, headers=GZIP)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


def test_a_body_still_to_come_holds_the_memory_of_what_came(shades: Repository, serve: Serve) -> None:
    running = serve(max_body_bytes=1_000_000).until_ready()
    port = running.client.base_url.port
    assert port is not None
    half = gzip.compress(bytes(900_000))
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2000\r\n\r\n"
    assert len(half) < 2_000
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + half)
        until(lambda: running.service.budget.held_bytes >= len(half))
        assert running.service.budget.held_bytes < 2_000


def test_a_body_that_is_not_encoded_as_it_says_is_refused(client: httpx.Client) -> None:
    packed = gzip.compress(b"some text" * 10)
    for body in (b"plain", packed[:-9], packed[:-1], packed + b"more", b""):
        response = client.post("/predict", content=body, headers=GZIP)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
        assert "gzip" in response.json()["detail"]
    response = client.post("/predict", content=b"{}", headers={"Content-Encoding": "br"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "'br'" in response.json()["detail"]
