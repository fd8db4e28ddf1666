"""The batching engine against a fake model that runs when the test lets it, and a clock that the test sets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.batching import Batcher, Crew, Ticket
from app.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    InternalError,
    Overloaded,
    UndecodableImage,
)
from app.items import Item
from app.latency import LatencyCurve, buckets
from app.workers import Workers

pytestmark = pytest.mark.anyio

FAR_S = 1_000.0
PATIENCE_S = 20.0


class Model:
    """Answers each item with its own value; `gate` holds a batch back, `poison` fails any batch that has it."""

    def __init__(self, poison: int | None = None, largest: int = 10_000) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.poison = poison
        self.largest = largest

    def __call__(self, examples_N1: Tensor) -> Tensor:
        values = examples_N1[:, 0].tolist()
        self.batches.append(values)
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if len(values) > self.largest:
            raise torch.OutOfMemoryError("simulated")
        if self.poison in values:
            raise RuntimeError("this item cannot be done")
        return examples_N1.float()

    async def is_running(self) -> None:
        """Wait until the model holds a batch."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def unprepared(_: Item) -> Tensor:
    raise AssertionError("nothing was to be decoded")


@asynccontextmanager
async def batcher_of(
    model: Callable[[Tensor], Tensor],
    curve_s: dict[int, float] | None = None,
    *,
    prepare: Callable[[Item], Tensor] = unprepared,
    threads: int = 1,
    alone_s: dict[int, dict[int, float]] | None = None,
    used: list[int] | None = None,
    **options: Any,
) -> AsyncIterator[Batcher]:
    """A batcher with workers of its own; the numbers of threads that its batches were told go into `used`."""
    given: dict[str, Any] = {"capacity": 100, "max_batch_size": 8, "clock": Clock()} | options
    curve = LatencyCurve(curve_s or dict.fromkeys(buckets(given["max_batch_size"]), 0.001), alone_s)
    workers = Workers(threads, clock=given["clock"]).start()

    def infer(examples: Sequence[Tensor], _top_ks: Sequence[int], threads: int) -> Sequence[Tensor]:
        if used is not None:
            used.append(threads)
        return model(torch.stack(list(examples))).unbind(0)

    batcher = Batcher(prepare, infer, curve, Crew(workers, workers), **given)
    try:
        yield batcher
    finally:
        if isinstance(model, Model):
            model.gate.set()
        batcher.close()
        workers.close()
        await asyncio.to_thread(workers.join, PATIENCE_S)


def admit(batcher: Batcher, count: int, deadline_s: float) -> list[Ticket]:
    return batcher.admit(count, deadline_s).tickets


def admit_each(batcher: Batcher, count: int, deadline_s: float) -> list[Ticket]:
    """Admit so many requests of one item each."""
    return [batcher.admit(1, deadline_s).tickets[0] for _ in range(count)]


def cancel(batcher: Batcher, tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        batcher.cancel(ticket.order, ClientDisconnected())


def put(batcher: Batcher, tickets: Sequence[Ticket], values: Sequence[int]) -> None:
    for ticket, value in zip(tickets, values, strict=True):
        batcher.put(ticket, torch.tensor([value]))


async def answers(tickets: Sequence[Ticket]) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        for ticket in tickets:
            await asyncio.shield(ticket.order.answered)
    found = [ticket.answer for ticket in tickets]
    return [int(each[0]) if isinstance(each, Tensor) else each for each in found]


async def test_every_item_gets_its_own_answer() -> None:
    async with batcher_of(Model()) as batcher:
        tickets = admit(batcher, 20, FAR_S)
        put(batcher, tickets, range(20))
        assert await answers(tickets) == list(range(20))
        assert batcher.open_tickets == 0


async def test_an_idle_worker_takes_a_lone_item_at_once() -> None:
    model = Model()
    async with batcher_of(model) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        put(batcher, tickets, [7])
        assert await answers(tickets) == [7]
        assert model.batches == [[7]]


async def hold(model: Model, batcher: Batcher) -> list[Ticket]:
    """Occupy the worker with one item, so that what comes next waits together."""
    model.gate.clear()
    first = admit(batcher, 1, FAR_S)
    put(batcher, first, [0])
    await model.is_running()
    return first


async def test_what_waits_behind_a_running_batch_goes_together_in_order() -> None:
    model = Model()
    async with batcher_of(model, {1: 0.01, 2: 0.01, 4: 0.01, 8: 0.01}) as batcher:
        first = await hold(model, batcher)
        tickets = admit(batcher, 11, FAR_S)
        put(batcher, tickets, range(1, 12))
        model.gate.set()
        assert await answers([*first, *tickets]) == list(range(12))
        assert model.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]


async def test_a_batch_is_cut_to_the_size_that_the_measured_curve_favours() -> None:
    model = Model()
    # Four at a time is as fast per item as eight.
    async with batcher_of(model, {1: 0.010, 2: 0.012, 4: 0.020, 8: 0.040}, clock=Clock()) as batcher:
        first = await hold(model, batcher)
        tickets = admit(batcher, 4, FAR_S)
        put(batcher, tickets, range(1, 5))
        more = admit(batcher, 4, FAR_S)
        put(batcher, more, range(5, 9))
        assert batcher.curve.best_size == 4
        model.gate.set()
        await answers([*first, *tickets, *more])
        assert model.batches[1] == [1, 2, 3, 4]


async def test_what_is_padded_is_batched_with_what_is_of_like_length() -> None:
    model = Model()
    lengths = [30, 5, 31, 6, 29, 5, 1]  # Of three long ones and a short one, under a quarter is padding.
    async with batcher_of(model, length=lambda example: int(example[0])) as batcher:
        first = await hold(model, batcher)
        tickets = admit_each(batcher, len(lengths), FAR_S)
        put(batcher, tickets, lengths)
        model.gate.set()
        assert await answers(tickets) == lengths
        await answers(first)
    # Each batch begins with whoever waits longest, so that none is passed over for ever.
    assert model.batches[1:] == [[30, 31, 29, 6], [5, 5], [1]]


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=60))
async def test_a_batch_of_any_lengths_is_mostly_filled_and_has_the_oldest(lengths: list[int]) -> None:
    model = Model()
    async with batcher_of(model, length=lambda example: int(example[0])) as batcher:
        first = await hold(model, batcher)
        tickets = admit_each(batcher, len(lengths), FAR_S)
        put(batcher, tickets, lengths)
        model.gate.set()
        assert await answers(tickets) == lengths
        await answers(first)
    for batch in model.batches[1:]:
        assert sum(batch) >= 0.75 * max(batch) * len(batch)
        assert len(batch) <= 8
    assert sorted(value for batch in model.batches[1:] for value in batch) == sorted(lengths)


async def test_a_queue_delay_waits_for_a_batch_to_fill() -> None:
    model = Model()
    async with batcher_of(model, dict.fromkeys((1, 2, 4), 0.01), max_batch_size=4, delay_s=PATIENCE_S) as batcher:
        tickets = admit(batcher, 4, FAR_S)
        put(batcher, tickets[:1], [0])
        put(batcher, tickets[1:], [1, 2, 3])
        assert await answers(tickets) == [0, 1, 2, 3]
        assert model.batches == [[0, 1, 2, 3]]


async def test_a_full_queue_refuses_at_once_and_all_or_nothing() -> None:
    model = Model()
    async with batcher_of(model, capacity=5) as batcher:
        first = await hold(model, batcher)
        second = admit(batcher, 3, FAR_S)
        with pytest.raises(Overloaded, match="4 of 5 places") as refused:
            admit(batcher, 2, FAR_S)
        assert refused.value.retry_after_s is not None
        assert batcher.open_tickets == 4
        third = admit(batcher, 1, FAR_S)
        put(batcher, [*second, *third], [1, 2, 3, 4])
        model.gate.set()
        await answers([*first, *second, *third])
        cancel(batcher, admit(batcher, 5, FAR_S))


async def test_places_are_free_again_after_every_kind_of_end() -> None:
    model = Model(poison=13)
    async with batcher_of(model, capacity=3) as batcher:
        tickets = admit_each(batcher, 3, FAR_S)
        put(batcher, tickets[:1], [13])
        batcher.fail(tickets[1], ValueError("undecodable"))
        cancel(batcher, tickets[2:])
        failed, undecodable, cancelled = await answers(tickets)
        assert isinstance(failed, InferenceFailed)
        assert isinstance(undecodable, ValueError)
        assert isinstance(cancelled, ClientDisconnected)
        cancel(batcher, admit(batcher, 3, FAR_S))


async def test_a_deadline_that_would_be_missed_is_refused_at_admission() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        # One runs for a second and this one takes another.
        with pytest.raises(Overloaded, match=r"expected in 2\.000 s"):
            admit(batcher, 1, clock.now_s + 1.9)
        second = admit(batcher, 1, clock.now_s + 2.1)
        with pytest.raises(Overloaded) as refused:
            admit(batcher, 1, clock.now_s + 2.9)
        assert refused.value.retry_after_s == pytest.approx(2.0)
        put(batcher, second, [1])
        model.gate.set()
        await answers([*first, *second])


async def test_the_running_batch_counts_only_for_the_time_it_still_has() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        clock.now_s += 0.8
        second = admit(batcher, 1, clock.now_s + 1.3)
        put(batcher, second, [1])
        model.gate.set()
        await answers([*first, *second])


async def test_a_slow_spell_does_not_shut_an_idle_model_for_ever() -> None:
    clock = Clock()
    async with batcher_of(Model(), {1: 0.01}, max_batch_size=1, clock=clock) as batcher:
        batcher.curve.record(1, 500.0)
        assert batcher.curve.mean_s(1) > 10
        tickets = admit(batcher, 1, clock.now_s + 1)
        put(batcher, tickets, [1])
        assert await answers(tickets) == [1]


async def test_an_idle_model_still_refuses_what_it_was_never_fast_enough_for() -> None:
    clock = Clock()
    async with batcher_of(Model(), {1: 2.0}, max_batch_size=1, clock=clock) as batcher:
        with pytest.raises(Overloaded):
            admit(batcher, 1, clock.now_s + 1)


async def test_a_deadline_already_past_is_refused_as_such() -> None:
    clock = Clock()
    async with batcher_of(Model(), clock=clock) as batcher:
        with pytest.raises(DeadlineExceeded):
            admit(batcher, 1, clock.now_s)


async def test_an_item_whose_time_ran_out_in_the_queue_is_not_computed() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, clock=clock) as batcher:
        first = await hold(model, batcher)
        late, early = admit(batcher, 1, clock.now_s + 5), admit(batcher, 1, clock.now_s + 50)
        put(batcher, [*late, *early], [1, 2])
        clock.now_s += 10
        model.gate.set()
        _, expired, in_time = await answers([*first, *late, *early])
        assert isinstance(expired, DeadlineExceeded)
        assert in_time == 2
        assert model.batches == [[0], [2]]


async def test_an_answer_that_comes_late_is_not_given() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, clock=clock) as batcher:
        model.gate.clear()
        tickets = admit(batcher, 1, clock.now_s + 5)
        put(batcher, tickets, [1])
        await model.is_running()
        clock.now_s += 10
        model.gate.set()
        (late,) = await answers(tickets)
        assert isinstance(late, DeadlineExceeded)


async def test_a_cancelled_item_costs_no_compute_and_harms_no_neighbour() -> None:
    model = Model()
    async with batcher_of(model) as batcher:
        first = await hold(model, batcher)
        tickets = admit_each(batcher, 4, FAR_S)
        put(batcher, tickets, [1, 2, 3, 4])
        cancel(batcher, [tickets[0], tickets[2]])
        model.gate.set()
        _, one, two, three, four = await answers([*first, *tickets])
        assert isinstance(one, ClientDisconnected)
        assert isinstance(three, ClientDisconnected)
        assert (two, four) == (2, 4)
        assert model.batches == [[0], [2, 4]]


async def test_an_item_cancelled_while_it_runs_harms_no_neighbour() -> None:
    model = Model()
    async with batcher_of(model, dict.fromkeys((1, 2, 4, 8), 0.01)) as batcher:
        first = await hold(model, batcher)
        tickets = admit_each(batcher, 3, FAR_S)
        put(batcher, tickets, [1, 2, 3])
        model.gate.set()
        await answers(first)
        cancel(batcher, tickets[:1])
        assert (await answers(tickets))[1:] == [2, 3]


async def test_an_item_cancelled_before_it_is_decoded_is_dropped_when_it_comes() -> None:
    model = Model()
    async with batcher_of(model) as batcher:
        tickets = admit_each(batcher, 2, FAR_S)
        cancel(batcher, tickets[:1])
        put(batcher, tickets, [1, 2])
        assert (await answers(tickets))[1] == 2
        assert model.batches == [[2]]


async def test_one_bad_item_fails_alone() -> None:
    model = Model(poison=3)
    async with batcher_of(model, dict.fromkeys((1, 2, 4, 8), 0.01)) as batcher:
        first = await hold(model, batcher)
        tickets = admit(batcher, 8, FAR_S)
        put(batcher, tickets, range(1, 9))
        model.gate.set()
        found = await answers(tickets)
        await answers(first)
        assert isinstance(found.pop(2), InferenceFailed)
        assert found == [1, 2, 4, 5, 6, 7, 8]


async def test_a_batch_too_large_for_the_memory_is_halved_before_anyone_sees_an_error() -> None:
    model = Model(largest=2)
    async with batcher_of(model, dict.fromkeys((1, 2, 4, 8), 0.01)) as batcher:
        first = await hold(model, batcher)
        tickets = admit(batcher, 8, FAR_S)
        put(batcher, tickets, range(1, 9))
        model.gate.set()
        assert await answers([*first, *tickets]) == list(range(9))
        assert [len(batch) for batch in model.batches] == [1, 8, 4, 2, 2, 4, 2, 2]


async def test_a_client_that_leaves_while_its_batch_is_run_in_halves_harms_nobody() -> None:
    first_runs, all_run, go_on, fail = (threading.Event() for _ in range(4))
    batches: list[list[int]] = []

    def infer(examples_N1: Tensor) -> Tensor:
        batches.append(examples_N1[:, 0].tolist())
        if len(examples_N1) == 1 and not first_runs.is_set():
            first_runs.set()
            assert go_on.wait(PATIENCE_S)
        if len(examples_N1) == 4:
            all_run.set()
            assert fail.wait(PATIENCE_S)
            raise torch.OutOfMemoryError("simulated")
        return examples_N1.float()

    async with batcher_of(infer, dict.fromkeys((1, 2, 4), 0.01), max_batch_size=4) as batcher:
        first = admit(batcher, 1, FAR_S)
        put(batcher, first, [0])
        assert await asyncio.to_thread(first_runs.wait, PATIENCE_S)
        tickets = admit_each(batcher, 4, FAR_S)
        put(batcher, tickets, [1, 2, 3, 4])
        go_on.set()
        assert await asyncio.to_thread(all_run.wait, PATIENCE_S)
        cancel(batcher, [tickets[0], tickets[3]])
        fail.set()
        assert (await answers(tickets))[1:3] == [2, 3]
        await answers(first)
    assert batches == [[0], [1, 2, 3, 4], [2], [3]]


def item(value: int) -> Item:
    return Item("text", str(value).encode())


def to_tensor(given: Item) -> Tensor:
    return torch.tensor([int(given.content)])


async def test_items_are_decoded_and_then_run() -> None:
    async with batcher_of(Model(), prepare=to_tensor) as batcher:
        order = batcher.admit(3, FAR_S)
        batcher.submit(order, [item(value) for value in (7, 8, 9)])
        assert await answers(order.tickets) == [7, 8, 9]
        assert all(ticket.item is None for ticket in order.tickets)


async def test_an_item_that_cannot_be_decoded_fails_alone() -> None:
    def prepare(given: Item) -> Tensor:
        if given.content == b"1":
            raise UndecodableImage("no image")
        return to_tensor(given)

    async with batcher_of(Model(), prepare=prepare) as batcher:
        order = batcher.admit(3, FAR_S)
        batcher.submit(order, [item(value) for value in range(3)])
        zero, one, two = await answers(order.tickets)
        assert (zero, two) == (0, 2)
        assert isinstance(one, UndecodableImage)


async def test_a_fault_of_ours_in_decoding_is_told_without_its_insides() -> None:
    def prepare(_: Item) -> Tensor:
        raise RuntimeError("secret")

    async with batcher_of(Model(), prepare=prepare) as batcher:
        order = batcher.admit(1, FAR_S)
        batcher.submit(order, [item(1)])
        (error,) = await answers(order.tickets)
        assert isinstance(error, InternalError)
        assert "secret" not in error.detail


async def test_what_nobody_waits_for_is_not_decoded() -> None:
    clock, model = Clock(), Model()
    decoded: list[bytes] = []

    def prepare(given: Item) -> Tensor:
        decoded.append(given.content)
        return to_tensor(given)

    async with batcher_of(model, prepare=prepare, clock=clock) as batcher:
        first = await hold(model, batcher)
        gone, late, good = (batcher.admit(1, clock.now_s + left_s) for left_s in (50, 5, 50))
        for value, order in enumerate((gone, late, good), start=1):
            batcher.submit(order, [item(value)])
        batcher.cancel(gone, ClientDisconnected())
        assert gone.tickets[0].item is None
        clock.now_s += 10
        model.gate.set()
        found = await answers([*first, *late.tickets, *good.tickets])
        assert isinstance(found[1], DeadlineExceeded)
        assert (decoded, found[2]) == ([b"3"], 3)


async def test_what_is_to_be_decoded_counts_at_admission() -> None:
    clock, model = Clock(), Model()

    def prepare(given: Item) -> Tensor:
        clock.now_s += 30.0
        return to_tensor(given)

    async with batcher_of(model, prepare=prepare, clock=clock) as batcher:
        slow = batcher.admit(1, clock.now_s + 100)
        batcher.submit(slow, [item(0)])
        await answers(slow.tickets)
        first = await hold(model, batcher)
        waiting = batcher.admit(2, clock.now_s + 100)
        batcher.submit(waiting, [item(1), item(2)])
        # A tenth of the 30 seconds is believed of one slow item: twice that is ahead, and it takes that itself.
        with pytest.raises(Overloaded, match=r"expected in 9\.0"):
            batcher.admit(1, clock.now_s + 8)
        batcher.cancel(batcher.admit(1, clock.now_s + 10), ClientDisconnected())
        model.gate.set()
        await answers([*first, *waiting.tickets])


async def test_a_lone_batch_takes_every_core_and_others_one_each() -> None:
    model, used = Model(), list[int]()
    alone_s = {2: dict.fromkeys((1, 2, 4, 8), 0.0005)}
    async with batcher_of(model, threads=2, alone_s=alone_s, used=used) as batcher:
        first = await hold(model, batcher)
        second = admit(batcher, 1, FAR_S)
        put(batcher, second, [1])
        await model.is_running()
        model.gate.set()
        assert await answers([*first, *second]) == [0, 1]
        assert used == [2, 1]


async def test_a_lone_batch_takes_one_core_where_more_do_not_make_it_faster() -> None:
    used: list[int] = []
    alone_s = {2: dict.fromkeys((1, 2, 4, 8), 0.01)}
    async with batcher_of(Model(), threads=2, alone_s=alone_s, used=used) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        put(batcher, tickets, [1])
        await answers(tickets)
        assert used == [1]


async def test_what_waits_is_shared_by_the_threads_that_are_free() -> None:
    model = Model()
    async with batcher_of(model, dict.fromkeys((1, 2, 4, 8), 0.01), threads=2) as batcher:
        model.gate.clear()
        tickets = admit(batcher, 6, FAR_S)
        with batcher._lock:  # so that neither thread looks before all are there
            put(batcher, tickets, range(6))
        await model.is_running()
        await model.is_running()
        model.gate.set()
        assert await answers(tickets) == list(range(6))
        assert sorted(model.batches) == [[0, 1, 2], [3, 4, 5]]


async def test_a_queue_delay_counts_at_admission() -> None:
    clock = Clock()
    async with batcher_of(Model(), clock=clock, delay_s=1.0) as batcher:
        with pytest.raises(Overloaded):
            admit(batcher, 1, clock.now_s + 0.5)


async def test_what_was_cancelled_while_it_ran_no_longer_counts_as_running() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        second = admit(batcher, 1, FAR_S)
        cancel(batcher, first)
        # One still runs, although nobody waits for it, and one waits: a third is two seconds away, and its own.
        with pytest.raises(Overloaded, match=r"expected in 3\.000 s"):
            admit(batcher, 1, clock.now_s + 2.9)
        cancel(batcher, second)


async def test_another_number_of_outputs_is_a_failure_of_inference() -> None:
    async with batcher_of(lambda _: torch.zeros((3, 1))) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        put(batcher, tickets, [1])
        assert isinstance((await answers(tickets))[0], InferenceFailed)


async def test_draining_refuses_the_new_and_answers_the_admitted() -> None:
    model = Model()
    async with batcher_of(model) as batcher:
        first = await hold(model, batcher)
        admitted = admit(batcher, 2, FAR_S)
        batcher.drain()
        with pytest.raises(Draining):
            admit(batcher, 1, FAR_S)
        waiting = asyncio.create_task(batcher.drained())
        put(batcher, admitted, [1, 2])
        assert not waiting.done()
        model.gate.set()
        assert await answers([*first, *admitted]) == [0, 1, 2]
        async with asyncio.timeout(PATIENCE_S):
            await waiting


async def test_closing_leaves_no_ticket_without_an_answer() -> None:
    model = Model()
    async with batcher_of(model) as batcher:
        first = await hold(model, batcher)
        queued, undecoded = admit(batcher, 1, FAR_S), admit(batcher, 1, FAR_S)
        put(batcher, queued, [1])
        batcher.close()
        found = await answers([*queued, *undecoded])
        assert all(isinstance(each, Draining) for each in found)
        model.gate.set()
        await answers(first)
        assert batcher.open_tickets == 0
        put(batcher, undecoded, [2])
        assert model.batches == [[0]]


async def test_batches_are_reported_and_the_curve_kept_current() -> None:
    reported: list[tuple[int, float]] = []
    done = threading.Event()

    def on_batch(size: int, seconds: float) -> None:
        reported.append((size, seconds))
        done.set()

    async with batcher_of(Model(), {1: 10.0}, max_batch_size=1, on_batch=on_batch) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        put(batcher, tickets, [1])
        await answers(tickets)
        assert await asyncio.to_thread(done.wait, PATIENCE_S)
        assert reported == [(1, 0.0)]
        assert batcher.curve.mean_s(1) < 10.0


async def test_a_ticket_records_when_it_passed_each_stage() -> None:
    clock = Clock()
    async with batcher_of(Model(), clock=clock) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        clock.now_s += 1
        put(batcher, tickets, [1])
        await answers(tickets)
        ticket = tickets[0]
        assert (ticket.admitted_s, ticket.queued_s, ticket.finished_s) == (100, 101, 101)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 6)),
        st.tuples(st.just("put"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(1, 8), st.integers(0, 30))
def test_whatever_happens_every_ticket_is_settled_once_and_every_place_freed(
    steps: list[tuple[str, int]], max_batch_size: int, poison: int
) -> None:
    asyncio.run(_run_steps(steps, max_batch_size, poison))


async def _run_steps(steps: list[tuple[str, int]], max_batch_size: int, poison: int) -> None:
    model = Model(poison=poison)
    async with batcher_of(model, max_batch_size=max_batch_size, capacity=12) as batcher:
        tickets = await _play(steps, batcher)
        found = await answers(tickets)
        async with asyncio.timeout(PATIENCE_S):
            await batcher.drained()
        assert batcher.open_tickets == 0
    for number, answer in enumerate(found):
        assert answer == number or isinstance(answer, InferenceFailed | ValueError | ClientDisconnected)
        assert not isinstance(answer, InferenceFailed) or number == poison
    assert all(len(batch) <= max_batch_size for batch in model.batches)


async def _play(steps: list[tuple[str, int]], batcher: Batcher) -> list[Ticket]:
    """Do the steps, end every ticket that they leave open with an example, and return all tickets."""
    tickets: list[Ticket] = []
    ended: set[int] = set()
    ends: dict[str, Callable[[int], None]] = {
        "put": lambda number: put(batcher, [tickets[number]], [number]),
        "cancel": lambda number: cancel(batcher, [tickets[number]]),
        "fail": lambda number: batcher.fail(tickets[number], ValueError("undecodable")),
    }
    for what, number in steps:
        if what == "admit":
            for _ in range(number):
                with suppress(Overloaded):
                    tickets += admit(batcher, 1, FAR_S)
        elif what == "wait":
            await asyncio.sleep(0)
        elif number < len(tickets) and number not in ended:
            ended.add(number)
            ends[what](number)
        assert batcher.open_tickets <= batcher.capacity
    for number in set(range(len(tickets))) - ended:
        ends["put"](number)
    return tickets
