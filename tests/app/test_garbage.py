"""What a request held is free at once when it is answered, not when the garbage collector comes by."""

import gc
import gzip
import socket
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.repository import Repository
from tests.faults.hostile import post
from tests.images import png
from tests.servers import PATIENCE_S, Running, until

Serve = Callable[..., Running]

MUCH_BYTES = 300_000
PADDING = bytes(MUCH_BYTES)
LETTERS = b"-" * MUCH_BYTES
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
INFER = "/v2/models/shades/infer"
REQUESTS = {
    "a good image": post("/predict", "image/png", png(0) + PADDING),
    "no image": post("/predict", "image/png", PADDING),
    "a damaged image": post("/predict", "image/png", png(0)[:40] + PADDING),
    "half a body": post("/predict", "image/png", 2 * PADDING, X_Request_Timeout_Ms="200")[: -MUCH_BYTES // 2],
    "an unknown model": post("/models/none/predict", "image/png", png(0) + PADDING),
    "an unknown type": post("/predict", "application/pdf", PADDING),
    "no JSON": post("/predict", "application/json", PADDING),
    "JSON of bad fields": post("/predict", "application/json", b'{"instances": 5, "x": "%s"}' % LETTERS),
    "a bad instance": post("/predict", "application/json", b'{"instances": [{"image": "%s"}]}' % LETTERS),
    "no charset": post("/predict", "text/plain; charset=x", PADDING),
    "no UTF-8": post("/predict", "text/plain", b"\xff" + PADDING),
    "too long a text": post("/predict", "text/plain", LETTERS),
    "no form": post("/predict", FORM, PADDING),
    "a form of no images": post("/predict", FORM, 2 * (PART + PADDING + b"\r\n") + b"--x--\r\n"),
    "too large a body": post("/predict", "image/png", gzip.compress(5 * PADDING), Content_Encoding="gzip"),
    "no gzip": post("/predict", "image/png", PADDING, Content_Encoding="gzip"),
    "no tensors": post(INFER, "application/json", PADDING),
    "a bad tensor": post(INFER, "application/json", b'{"inputs": [{"name": "images", "data": ["%s"]}]}' % LETTERS),
    "no feedback": post("/feedback", "application/json", PADDING),
}


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """Nothing is collected, and what would have been is here after `gc.collect`."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("name", REQUESTS)
def test_no_body_waits_for_the_garbage_collector(
    shades: Repository, serve: Serve, garbage: list[object], tmp_path: Path, name: str
) -> None:
    running = serve(max_body_bytes=4 * MUCH_BYTES, feedback_file=tmp_path / "feedback.sqlite").until_ready()
    garbage.clear()
    answer = ask(running.port, REQUESTS[name])
    assert answer.startswith(b"HTTP/1.1 200 ") == (name == "a good image"), answer
    until(lambda: running.service.metrics.requests_in_flight == 0)
    assert not holders(garbage)


def test_no_body_of_a_client_that_is_gone_waits_either(
    shades: Repository, serve: Serve, garbage: list[object]
) -> None:
    running = serve().until_ready()
    garbage.clear()
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
        connection.sendall(post("/predict", "image/png", 2 * PADDING)[: -MUCH_BYTES // 2])
        until(lambda: running.service.budget.held_bytes >= MUCH_BYTES)
    until(lambda: running.service.metrics.requests_in_flight == 0)
    assert not holders(garbage)


def ask(port: int, request: bytes) -> bytes:
    """As a client that holds nothing itself."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


def holders(garbage: list[object]) -> list[str]:
    """What would have been collected, and holds a body or most of it."""
    gc.collect()
    return [_name(each) for each in garbage for what in gc.get_referents(each) if _is_much(what)]


def _is_much(what: object) -> bool:
    return isinstance(what, bytes | bytearray | str) and len(what) >= MUCH_BYTES


def _name(holder: object) -> str:
    return f"{holder.f_code.co_qualname}" if isinstance(holder, types.FrameType) else type(holder).__qualname__
