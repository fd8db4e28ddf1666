import base64
import gc
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_core import to_json

import app.gate
from app.main import create_app
from app.server import Server
from app.settings import Settings
from models.repository import Repository
from tests.images import png
from tests.servers import Running, until


@pytest.mark.parametrize(("stuck", "abandoned"), [(True, [0]), (False, [])])
def test_work_that_does_not_come_back_cannot_hold_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: bool, abandoned: list[int]
) -> None:
    settings = Settings(models_dir=tmp_path)
    server = Server(create_app(settings), settings)
    exits: list[int] = []
    gate = threading.Event()
    work = threading.Thread(target=gate.wait, args=(60,))

    def run() -> None:
        server.started = True
        work.start()
        if not stuck:
            gate.set()

    monkeypatch.setattr(server, "run", run)
    monkeypatch.setattr(os, "_exit", exits.append)
    assert server.serve_until_stopped() in (0, None)
    gate.set()
    work.join()
    assert exits == abandoned


def test_what_is_imported_is_not_looked_through_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models_dir=tmp_path)
    server = Server(create_app(settings), settings)
    frozen: list[int] = []
    monkeypatch.setattr(server, "run", lambda: frozen.append(gc.get_freeze_count()))
    try:
        server.serve_until_stopped()
    finally:
        gc.unfreeze()
    assert frozen[0] > 100_000  # torch alone brings more.


def test_connections_that_came_while_the_loop_was_busy_are_accepted_together(tmp_path: Path) -> None:
    count, held, rounds = 200, threading.Event(), [0]
    accepted_in: list[int] = []

    class Watched(Server):
        def _open(self, connection: socket.socket) -> bool:
            accepted_in.append(rounds[0])
            return super()._open(connection)

    settings = Settings(models_dir=tmp_path, port=0, reload_interval_s=0)
    server = Watched(create_app(settings), settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    clients: list[socket.socket] = []
    try:
        until(lambda: server.url is not None)
        assert server.url is not None
        port = int(server.url.rpartition(":")[2])
        loop = server._loop
        assert loop is not None

        def one_round() -> None:
            rounds[0] += 1
            if len(accepted_in) < count:
                loop.call_soon(one_round)

        loop.call_soon_threadsafe(held.wait, 60)
        clients += [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
        loop.call_soon_threadsafe(one_round)
        held.set()
        for client in clients:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        held.set()
        for client in clients:
            client.close()
        server.should_exit = True
        thread.join()
    assert max(accepted_in) - min(accepted_in) < count / 10


Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}


def make_slow(running: Running) -> None:
    """Have the event loop seem to take so long for each request that none can be let in."""
    gate = running.service.gate
    for _ in range(1_000):
        gate.start(gate.enter(), running.service.settings.request_timeout_s)
    gate.enter()  # It is never looked at, so that all others wait.


def test_who_would_wait_too_long_for_the_loop_is_refused_and_keeps_the_connection(
    shades: Repository, serve: Serve
) -> None:
    running = serve().until_ready()
    client = running.client
    assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
    make_slow(running)
    for body in (png(0), png(0) + bytes(300_000)):
        refused = client.post("/predict", content=body, headers=PNG | {"X-Request-ID": "mine"})
        assert refused.status_code == 503
        assert (refused.json()["code"], refused.json()["request_id"]) == ("overloaded", "mine")
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) >= 1
        assert "date" in refused.headers
    # Probes and metrics tell of it: they are let in.
    assert client.get("/health/ready").status_code == 200
    told = client.get("/metrics").text
    assert 'lantern_requests_total{code="overloaded",model="",route="unmatched",version=""} 2.0' in told


JSON = {"Content-Type": "application/json"}
ENCODED = base64.b64encode(png(0)).decode()
IN_JSON = to_json({"instances": [{"image": ENCODED}]})
TENSOR = to_json({"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}]})


def make_busy(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model seem to have work for hours, and each refusal stay true as long."""
    running.until_ready()
    batcher = running.service.registry.live["shades"].batcher
    monkeypatch.setattr(batcher._crew.runners, "wait_s", lambda _now_s, light: 36_000.0)
    monkeypatch.setattr(batcher, "_open", {object()})
    monkeypatch.setattr(app.gate, "BELIEVED_S", 3_600.0)


@pytest.mark.parametrize(
    ("path", "route", "content", "headers"),
    [
        ("/predict", "/predict", png(0), PNG),
        ("/models/shades/predict", "/models/{name}/predict", png(0), PNG),
        ("/predict?model=shades", "/predict", IN_JSON, JSON),
        ("/v2/models/shades/infer", "/v2/models/{name}/infer", TENSOR, JSON),
    ],
    ids=["an image", "a model's path", "a model's name", "the open protocol"],
)
def test_who_asks_what_another_was_refused_is_refused_where_headers_are_read(
    shades: Repository,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    route: str,
    content: bytes,
    headers: dict[str, str],
) -> None:
    running = serve()
    make_busy(running, monkeypatch)
    first, second = [running.client.post(path, content=content, headers=headers) for _ in range(2)]
    assert (first.status_code, second.status_code) == (503, 503)
    assert "the answer is expected in" in first.text
    assert "answered in time" in second.text
    assert first.headers["retry-after"] == second.headers["retry-after"] == "36000"
    version = running.service.registry.live["shades"].manifest.version
    labels = f'code="overloaded",model="shades",route="{route}",version="{version}"'
    assert f"lantern_requests_total{{{labels}}} 2.0" in running.client.get("/metrics").text


def test_who_says_only_in_the_body_what_is_asked_is_looked_at(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    make_busy(running, monkeypatch)
    for _ in range(2):
        refused = running.client.post("/predict", content=IN_JSON, headers=JSON)
        assert "the answer is expected in" in refused.json()["detail"]


def test_a_request_of_several_items_speaks_for_no_other(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    make_busy(running, monkeypatch)
    two = [("file", ("a.png", png(0))), ("file", ("b.png", png(0)))]
    for _ in range(2):
        refused = running.client.post("/models/shades/predict", files=two)
        assert "the answer is expected in" in refused.json()["detail"]


@pytest.mark.parametrize("last", ["GET", "POST"])
def test_a_refusal_leaves_the_connection_as_it_should_be(shades: Repository, serve: Serve, last: str) -> None:
    running = serve().until_ready()
    make_slow(running)
    body = png(0)
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {}\r\n{}\r\n"
    close = head.format(len(body), "Connection: close\r\n").encode() + body
    get = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    # Sooner than an idle connection is closed.
    with socket.create_connection(("127.0.0.1", running.port), timeout=4) as client:
        # The body comes after the answer.
        client.sendall(head.format(len(body), "").encode())
        assert client.recv(20).startswith(b"HTTP/1.1 503")
        client.sendall(body + (get if last == "GET" else close))
        answers = b""
        while piece := client.recv(10_000):
            answers += piece
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.count(b"connection: close") == 1
    assert (b"HTTP/1.1 200" in answers) == (last == "GET")


def test_requests_that_are_none_take_no_place_among_those_that_wait(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    for path in (b"/\xff", b"http://x:99999999/predict", b"/%ff", b"//"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as client:
            client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % path)
            while client.recv(10_000):
                pass
    assert running.service.gate.enter() == 1


def headers_of(running: Running, request: bytes) -> tuple[int, dict[str, str]]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as client:
        client.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += client.recv(65_536)
    status_line, *lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status_line.split()[1]), {
        name.lower(): value for name, _, value in (x.partition(": ") for x in lines)
    }


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 503),
        (b"this is not HTTP\r\n\r\n", 400),
    ],
    ids=["an answer", "a page", "an error", "a refusal at the gate", "no request"],
)
def test_every_answer_says_what_a_browser_must_not_do_with_it(
    shades: Repository, serve: Serve, request_: bytes, status: int
) -> None:
    running = serve().until_ready()
    make_slow(running)
    found, headers = headers_of(running, request_)
    assert found == status
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
