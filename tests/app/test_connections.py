"""What one connection may take of the service: in time, where nothing is owed to its client, and in memory."""

import select
import socket
import time
from collections.abc import Callable

import pytest

from app import protocol
from models.repository import Repository
from tests.images import png
from tests.servers import Running, until

Serve = Callable[..., Running]
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
PATIENCE_S = 20


@pytest.fixture
def running(shades: Repository, serve: Serve) -> Running:
    return serve().until_ready()


def connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S)


def is_cut(connection: socket.socket, piece: bytes, most_bytes: int) -> bool:
    """Send a piece again and again; whether the connection was ended before so many bytes."""
    try:
        for _ in range(most_bytes // len(piece)):
            connection.sendall(piece)
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (CHUNKED + b"0\r\n", b"X-A: " + b"y" * 990 + b"\r\n"),
        (CHUNKED + b"0\r\n", b"a:b\r\n" * 1_000),
        (CHUNKED + b"0\r\nX-A: ", b"y" * 10_000),
        (CHUNKED + b"5;", b"y" * 10_000),
    ],
    ids=["headers behind the body", "many of them", "one without an end", "an extension of a chunk"],
)
def test_what_is_no_body_has_its_limit_there_too(running: Running, begin: bytes, piece: bytes) -> None:
    with connect(running) as connection:
        connection.sendall(begin)
        assert is_cut(connection, piece, 20_000_000)
    assert (
        running.client.post("/predict", content=png(0), headers={"Content-Type": "image/png"}).status_code == 200
    )


def test_a_body_of_many_chunks_and_a_few_headers_behind_it_is_taken(running: Running) -> None:
    chunks = b"".join(b"1;x=%s\r\n%c\r\n" % (b"y" * 100, byte) for byte in png(0) * 20)
    with connect(running) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Sum: 5\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [b"http://x:y:z/", b"/\xff", b"*"])
def test_a_path_that_is_none_is_told_so_also_to_who_asks_first(
    running: Running, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    with connect(running) as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 40")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_requests_that_come_before_the_answers_are_answered_in_order(running: Running) -> None:
    asked = [GET + b"X-Request-ID: r-%d\r\n\r\n" % number for number in range(protocol.MOST_AHEAD)]
    with connect(running) as connection:
        connection.sendall(b"".join([*asked, GET, b"Connection: close\r\n\r\n"]))
        received = b""
        while more := connection.recv(65_536):
            received += more
    found = [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"x-request-id: r-")]
    assert found == [b"r-%d" % number for number in range(protocol.MOST_AHEAD)]


@pytest.mark.parametrize(
    "request_", [GET + b"\r\n", POST + b"Content-Length: 4\r\n\r\nabcd"], ids=["without a body", "with one"]
)
def test_too_many_that_come_before_the_answers_end_the_connection(running: Running, request_: bytes) -> None:
    with connect(running) as connection:
        try:
            connection.sendall(request_ * 20_000)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass  # It is ended as what is broken is.
    asked = running.client.get("/metrics").text
    (line,) = [line for line in asked.splitlines() if line.startswith("lantern_in_flight_requests ")]
    assert line.endswith(" 1.0")


@pytest.mark.parametrize(
    ("request_", "rest"),
    [(GET + b"\r\n", b"\r\n"), (GET + b"Content-Length: 1000000\r\n\r\n", b"y")],
    ids=["empty lines", "the rest of a body"],
)
def test_what_comes_after_an_answer_and_is_no_request_is_not_waited_for_long(
    running: Running, monkeypatch: pytest.MonkeyPatch, request_: bytes, rest: bytes
) -> None:
    monkeypatch.setattr(protocol, "REST_WITHIN_S", 0.5)
    with connect(running) as connection:
        connection.sendall(request_)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        start_s = time.monotonic()
        while not select.select([connection], [], [], 0.1)[0]:
            connection.sendall(rest)
        assert time.monotonic() - start_s < 5


def test_a_request_after_empty_lines_is_answered(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REST_WITHIN_S", 0.5)
    with connect(running) as connection:
        for _ in range(3):
            connection.sendall(b"\r\n" + GET + b"\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            # It is looked at meanwhile, and later than its rest may be.
            time.sleep(1.2)


def ask_without_reading(connection: socket.socket, running: Running) -> None:
    """Ask for more than the system keeps of answers."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", running.port))
    connection.sendall(DOCUMENT * 300)


def is_broken(connection: socket.socket) -> bool:
    """Whether the other end gave the connection up; what it sent before is left alone."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def test_who_does_not_take_an_answer_is_waited_for_no_longer(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(protocol, "TAKEN_WITHIN_S", 0.5)
    monkeypatch.setattr(protocol, "MOST_AHEAD", 1_000)
    with socket.socket() as connection:
        ask_without_reading(connection, running)
        until(lambda: is_broken(connection))
    until(lambda: "lantern_in_flight_requests 1.0" in running.client.get("/metrics").text)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_who_takes_an_answer_slowly_gets_all_of_it(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TAKEN_WITHIN_S", 2.0)
    monkeypatch.setattr(protocol, "MOST_AHEAD", 1_000)
    with socket.socket() as connection:
        ask_without_reading(connection, running)
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        received, start_s = 0, time.monotonic()
        while more := connection.recv(1_000_000):
            received += len(more)
            # More slowly than the service would write.
            time.sleep(len(more) / 4_000_000)
        assert time.monotonic() - start_s > 2 * protocol.TAKEN_WITHIN_S
        assert more == b""
        assert received > 300 * 10_000
