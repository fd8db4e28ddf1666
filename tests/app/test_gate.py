"""Who is let in while requests wait for the event loop."""

import asyncio
import json
import logging

import pytest

import app.gate
from app.gate import Gate
from app.metrics import Metrics
from app.schemas import Problem

pytestmark = pytest.mark.anyio

LONGEST_S = 30.0


def gate_of_a_slow_loop(each_s: float, longest_s: float = LONGEST_S) -> Gate:
    """One that has learned how long each request takes the loop; none waits."""
    gate = Gate(Metrics(), longest_s)
    for _ in range(1_000):
        gate.start(gate.enter(), each_s)
    return gate


def let_in(gate: Gate, count: int, *headers: tuple[bytes, bytes]) -> int:
    """Have so many come; return how many there were room for."""
    return sum(gate.lets_in(headers) and gate.enter() > 0 for _ in range(count))


def test_a_gate_that_knows_nothing_yet_lets_everyone_in() -> None:
    assert let_in(Gate(Metrics(), LONGEST_S), 10_000) == 10_000


def test_as_many_wait_as_the_loop_gets_to_within_a_part_of_their_time() -> None:
    assert let_in(gate_of_a_slow_loop(0.01), 10_000) == 301
    assert let_in(gate_of_a_slow_loop(0.01), 10_000, (b"x-request-timeout-ms", b"500")) == 6


def test_what_a_request_asks_for_counts_only_if_it_is_less_and_a_number() -> None:
    for given in (b"60000", b"soon"):
        assert let_in(gate_of_a_slow_loop(0.01), 10_000, (b"x-request-timeout-ms", given)) == 301


def test_a_short_wait_is_nobodys_reason_to_be_refused() -> None:
    assert let_in(gate_of_a_slow_loop(0.0001), 10, (b"x-request-timeout-ms", b"1")) == 10


def test_a_place_is_free_again_once_its_request_is_looked_at() -> None:
    gate = gate_of_a_slow_loop(1.0, longest_s=20.0)
    assert let_in(gate, 4) == 3
    gate.start(3, 3.0)
    assert let_in(gate, 4) == 1


def test_a_loop_that_is_fast_again_lets_in_again() -> None:
    gate = gate_of_a_slow_loop(60.0, longest_s=1.0)
    assert let_in(gate, 10) == 1
    for _ in range(600):
        gate.start(1, 0.00001)
        assert gate.enter() == 1
    assert let_in(gate, 10) == 10


def test_one_moment_in_which_the_process_was_held_up_does_not_shut_it() -> None:
    gate = Gate(Metrics(), longest_s=1.0)
    gate.start(gate.enter(), 4.0)
    assert let_in(gate, 2) == 2


async def test_a_refusal_is_a_problem_with_its_requests_own_id() -> None:
    head, body = Gate(Metrics(), LONGEST_S).refusal("/predict", [(b"x-request-id", b"mine-1")])
    problem = Problem.model_validate_json(body)
    assert (problem.status, problem.code, problem.request_id) == (503, "overloaded", "mine-1")
    lines = dict(line.split(b": ") for line in head.split(b"\r\n") if line)
    assert lines[b"x-request-id"] == b"mine-1"
    assert int(lines[b"content-length"]) == len(body)
    assert int(lines[b"retry-after"]) >= 1


async def test_a_refusal_is_said_in_the_words_of_its_protocol() -> None:
    head, body = Gate(Metrics(), LONGEST_S).refusal("/v2/models/shades/infer", [])
    assert list(json.loads(body)) == ["error"]
    assert b"content-type: application/json\r\n" in head
    assert b"content-length: %d\r\n" % len(body) in head


async def test_an_id_that_is_none_is_not_echoed() -> None:
    _, body = Gate(Metrics(), LONGEST_S).refusal("/predict", [(b"x-request-id", b'"},{"')])
    assert len(Problem.model_validate_json(body).request_id) == 32


async def test_refusals_are_counted_and_told_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.gate, "TELL_EVERY_S", 0.0)
    metrics = Metrics()
    gate = Gate(metrics, LONGEST_S)
    with caplog.at_level(logging.WARNING):
        for _ in range(7):
            gate.refusal("/predict", [])
        assert gate._telling is not None
        told = asyncio.Event()
        asyncio.get_running_loop().call_at(gate._telling.when(), told.set)  # Behind it, since at the same time.
        await told.wait()
    (message,) = caplog.messages
    assert message.startswith("7 requests")
    assert (
        b'lantern_requests_total{code="overloaded",model="",route="unmatched",version=""} 7.0' in metrics.render()
    )
