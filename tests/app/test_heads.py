"""A request's headers come within limits of size and time, or the connection ends."""

import select
import socket
import time
from collections.abc import Callable

import pytest

from app import protocol, server
from models.repository import Repository
from tests.images import png
from tests.servers import Running

Serve = Callable[..., Running]
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


def answer(port: int, *pieces: bytes) -> bytes:
    """Send pieces, and return all that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # It was answered before it was read to its end.
        received = b""
        try:
            while more := connection.recv(65_536):
                received += more
        except ConnectionError:
            pass
        return received


@pytest.fixture
def port(shades: Repository, serve: Serve) -> int:
    return serve().until_ready().port


@pytest.mark.parametrize(
    "piece",
    [b"X-A: " + b"y" * 10_000_000, b"X-A: y\r\n" * 200_000],
    ids=["one that does not end", "many"],
)
def test_headers_that_do_not_end_are_given_up(port: int, piece: bytes) -> None:
    received = answer(port, GET, piece)
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")
    assert answer(port, GET + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_too_many_in_small_pieces_are_told_why(port: int) -> None:
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(GET)
        while not received:
            connection.sendall(b"X-A: " + b"y" * 990 + b"\r\n")
            readable, _, _ = select.select([connection], [], [], 0.001)
            received = connection.recv(65_536) if readable else b""
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b"over 65536 bytes" in received
    assert b"x-content-type-options: nosniff" in received


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["before its end", "whole"])
def test_a_head_of_few_bytes_and_many_headers_is_told_why(port: int, end: bytes) -> None:
    received = answer(port, GET + b"a:b\r\n" * 300 + end)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b"over 200 headers" in received


def test_many_headers_within_the_limit_are_taken(port: int) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 500) for number in range(100))
    assert answer(port, GET, headers, b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_body_and_the_next_request_behind_it_are_no_headers(port: int) -> None:
    body = png(0) + bytes(300_000)
    post = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    received = answer(port, (post + body) * 3 + GET, b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 4


@pytest.mark.parametrize("sent", [b"", b"GET", GET, GET + b"X-A: y"])
def test_headers_that_are_late_are_waited_for_no_longer(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.5)
    port = serve().until_ready().port
    start_s = time.monotonic()
    received = answer(port, sent)
    assert time.monotonic() - start_s < 10
    assert received.startswith(b"HTTP/1.1 408 ") if sent else received == b""


def test_who_is_idle_or_waits_for_an_answer_is_not_late(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.2)
    monkeypatch.setattr(server, "TICKS_PER_S", 1)
    port = serve().until_ready().port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(5):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            # It is looked at meanwhile, and later than headers may be.
            time.sleep(0.4)
