"""For whom a refusal speaks: those that would be refused too, whatever held up the one that was."""

import math
import time
from collections.abc import Callable

import httpx
import pytest

import app.gate
from app.errors import Overloaded
from models.repository import Repository
from tests.images import png
from tests.servers import Running

Serve = Callable[..., Running]

# Its sum with a time, less that time, is less than itself about as often as not.
GIVEN_MS = 1100


@pytest.fixture
def running(shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(app.gate, "BELIEVED_S", 3_600.0)
    return serve().until_ready()


def refused_by(running: Running, refusal: Callable[[float], Overloaded]) -> list[bool]:
    """Have the model refuse all it is asked; tell of each of some requests whether it was asked."""
    asked: list[bool] = []

    def refuse(*_arguments: object) -> None:
        asked.append(True)
        raise refusal(time.monotonic())

    batcher = running.service.registry.live["shades"].batcher
    batcher.admit = refuse  # type: ignore[assignment, method-assign]
    reached = []
    for _ in range(8):
        asked.clear()
        assert _post(running.client).status_code == 503
        reached.append(bool(asked))
    return reached


def _post(client: httpx.Client) -> httpx.Response:
    headers = {"Content-Type": "image/png", "X-Request-Timeout-Ms": str(GIVEN_MS)}
    return client.post("/predict", content=png(0), headers=headers)


def test_it_speaks_for_those_whose_answer_would_be_late_too(running: Running) -> None:
    late = refused_by(running, lambda now_s: Overloaded("late", answer_s=now_s + 100.0))
    assert late == [True] + 7 * [False]


def test_one_that_had_no_time_left_speaks_for_nobody_who_has(running: Running) -> None:
    held_up = refused_by(running, lambda now_s: Overloaded("late", answer_s=now_s + 0.9 * GIVEN_MS / 1000))
    assert held_up == 8 * [True]


def test_it_speaks_for_all_that_find_no_place_either(running: Running) -> None:
    assert refused_by(running, lambda _: Overloaded("full", free_s=math.inf)) == [True] + 7 * [False]


def test_one_that_does_not_say_how_long_it_holds_speaks_for_nobody(running: Running) -> None:
    assert refused_by(running, lambda _: Overloaded("full")) == 8 * [True]
