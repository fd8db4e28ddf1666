"""The memory that bodies take comes back when the last work on them is done."""

import gc
import threading
from collections.abc import Callable

import pytest

from app.errors import InvalidRequest
from models.repository import Repository
from tests.servers import Running, until

Serve = Callable[..., Running]


def test_a_body_is_held_as_long_as_a_thread_reads_it_whoever_was_answered(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def read_slowly(*_given: object) -> None:
        assert go_on.wait(30)
        raise InvalidRequest("the body is none")

    monkeypatch.setattr("app.routes.predict.parse_body", read_slowly)
    running = serve().until_ready()
    body = bytes(100_000)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "X-Request-Timeout-Ms": "100"}
    assert running.client.post("/predict", content=body, headers=headers).status_code == 504
    assert running.service.budget.held_bytes == len(body)
    go_on.set()
    until(lambda: running.service.budget.held_bytes == 0)
    gc.collect()
    assert "never retrieved" not in caplog.text
