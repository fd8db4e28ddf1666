"""The queue of a model: what goes together, in which order, and who gets which answer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.batching import Batcher
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
from app.tickets import Ticket
from tests.app.batchers import (
    FAR_S,
    PATIENCE_S,
    Clock,
    Model,
    admit,
    admit_each,
    answers,
    batcher_of,
    cancel,
    hold,
    item,
    put,
    to_tensor,
)

pytestmark = pytest.mark.anyio


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


async def test_a_queue_delay_waits_for_a_batch_to_fill() -> None:
    model = Model()
    async with batcher_of(model, dict.fromkeys((1, 2, 4), 0.01), max_batch_size=4, delay_s=PATIENCE_S) as batcher:
        tickets = admit(batcher, 4, FAR_S)
        put(batcher, tickets[:1], [0])
        put(batcher, tickets[1:], [1, 2, 3])
        assert await answers(tickets) == [0, 1, 2, 3]
        assert model.batches == [[0, 1, 2, 3]]


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
