"""Who is let in while requests wait for the event loop."""

import asyncio
import json
import logging

import pytest

import app.gate
from app.gate import BELIEVED_S, LOOP, MOST_WAYS, Gate, Queue
from app.metrics import Metrics
from app.schemas import Problem

pytestmark = pytest.mark.anyio

LONGEST_S = 30.0
URL, PNG = b"/predict?top_k=2", (b"content-type", b"image/png")
FULL = Queue(given_s=0.5, until_s=10.02, retry_after_s=7, about=("shades", "1", "/predict"))


def gate_of_a_slow_loop(each_s: float, longest_s: float = LONGEST_S) -> Gate:
    """One that has learned how long each request takes the loop; none waits."""
    gate = Gate(Metrics(), longest_s)
    for _ in range(1_000):
        gate.start(gate.enter(), each_s)
    return gate


def let_in(gate: Gate, count: int, *headers: tuple[bytes, bytes]) -> int:
    """Have so many come; return how many there were room for."""
    return sum(gate.too_long(URL, headers, 0.0) is None and gate.enter() > 0 for _ in range(count))


def allowing(milliseconds: int) -> tuple[bytes, bytes]:
    """A request's header."""
    return b"x-request-timeout-ms", str(milliseconds).encode()


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


def test_who_asks_the_same_is_refused_for_a_moment() -> None:
    gate = Gate(Metrics(), LONGEST_S)
    gate.remember(URL, [PNG], FULL, 10.0)
    headers = [PNG, allowing(500)]
    assert gate.too_long(URL, headers, 10.0) == gate.too_long(URL, headers, 10.019) == FULL
    assert gate.too_long(URL, [PNG, allowing(100)], 10.0) == FULL
    assert gate.too_long(URL, headers, 10.02) is None


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (b"/predict", [PNG, allowing(500)]),
        (URL, [(b"content-type", b"image/jpeg"), allowing(500)]),
        (URL, [allowing(500)]),
        (URL, [PNG, allowing(501)]),
        (URL, [PNG]),
    ],
    ids=["another query", "another type", "no type", "more time", "all the time there is"],
)
def test_who_asks_otherwise_is_let_in(url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    gate = Gate(Metrics(), LONGEST_S)
    gate.remember(URL, [PNG], FULL, 10.0)
    assert gate.too_long(url, headers, 10.0) is None


def test_what_follows_the_content_type_is_not_looked_at() -> None:
    gate = Gate(Metrics(), LONGEST_S)
    gate.remember(URL, [(b"content-type", b"multipart/form-data; boundary=a")], FULL, 10.0)
    headers = [(b"content-type", b"multipart/form-data; boundary=b"), allowing(500)]
    assert gate.too_long(URL, headers, 10.0) == FULL


def test_no_refusal_is_believed_for_long() -> None:
    gate = Gate(Metrics(), LONGEST_S)
    gate.remember(URL, [PNG], FULL._replace(until_s=1_000.0), 10.0)
    headers = [PNG, allowing(500)]
    assert gate.too_long(URL, headers, 10.0 + 0.9 * BELIEVED_S) is not None
    assert gate.too_long(URL, headers, 10.0 + BELIEVED_S) is None


def test_a_later_refusal_takes_the_place_of_the_one_before() -> None:
    gate = Gate(Metrics(), LONGEST_S)
    gate.remember(URL, [PNG], FULL, 10.0)
    gate.remember(URL, [PNG], FULL._replace(given_s=0.1), 10.01)
    assert gate.too_long(URL, [PNG, allowing(500)], 10.01) is None


def test_only_so_many_ways_of_asking_are_remembered() -> None:
    gate = Gate(Metrics(), LONGEST_S)
    urls = [b"/predict?top_k=%d" % number for number in range(1_000)]
    for url in urls:
        gate.remember(url, [PNG], FULL, 10.0)
    known = [url for url in urls if gate.too_long(url, [PNG, allowing(500)], 10.0)]
    assert 0 < len(known) <= MOST_WAYS
    assert urls[-1] in known


async def test_a_refusal_is_counted_for_what_was_asked() -> None:
    metrics = Metrics()
    Gate(metrics, LONGEST_S).refusal(FULL, "/predict", [])
    line = b'lantern_requests_total{code="overloaded",model="shades",route="/predict",version="1"} 1.0'
    assert line in metrics.render()


async def test_a_refusal_is_a_problem_with_its_requests_own_id() -> None:
    head, body = Gate(Metrics(), LONGEST_S).refusal(LOOP, "/predict", [(b"x-request-id", b"mine-1")])
    problem = Problem.model_validate_json(body)
    assert (problem.status, problem.code, problem.request_id) == (503, "overloaded", "mine-1")
    lines = dict(line.split(b": ") for line in head.split(b"\r\n") if line)
    assert lines[b"x-request-id"] == b"mine-1"
    assert int(lines[b"content-length"]) == len(body)
    assert int(lines[b"retry-after"]) >= 1


async def test_a_refusal_says_when_to_come_back() -> None:
    head, _ = Gate(Metrics(), LONGEST_S).refusal(FULL, "/predict", [])
    assert b"retry-after: 7\r\n" in head


async def test_a_refusal_is_said_in_the_words_of_its_protocol() -> None:
    head, body = Gate(Metrics(), LONGEST_S).refusal(LOOP, "/v2/models/shades/infer", [])
    assert list(json.loads(body)) == ["error"]
    assert b"content-type: application/json\r\n" in head
    assert b"content-length: %d\r\n" % len(body) in head


async def test_an_id_that_is_none_is_not_echoed() -> None:
    _, body = Gate(Metrics(), LONGEST_S).refusal(LOOP, "/predict", [(b"x-request-id", b'"},{"')])
    assert len(Problem.model_validate_json(body).request_id) == 32


async def test_refusals_are_counted_and_told_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.gate, "TELL_EVERY_S", 0.0)
    metrics = Metrics()
    gate = Gate(metrics, LONGEST_S)
    with caplog.at_level(logging.WARNING):
        for _ in range(7):
            gate.refusal(LOOP, "/predict", [])
        assert gate._telling is not None
        told = asyncio.Event()
        asyncio.get_running_loop().call_at(gate._telling.when(), told.set)  # Behind it, since at the same time.
        await told.wait()
    (message,) = caplog.messages
    assert message.startswith("7 more requests")
    assert (
        b'lantern_requests_total{code="overloaded",model="",route="unmatched",version=""} 7.0' in metrics.render()
    )
