"""A batch as it runs: who is told that it is late, what is run in halves, and what is learned."""

import asyncio
import threading

import pytest
import torch
from torch import Tensor

from app.errors import (
    DeadlineExceeded,
    InferenceFailed,
)
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
    put,
)

pytestmark = pytest.mark.anyio


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


async def test_another_number_of_outputs_is_a_failure_of_inference() -> None:
    async with batcher_of(lambda _: torch.zeros((3, 1))) as batcher:
        tickets = admit(batcher, 1, FAR_S)
        put(batcher, tickets, [1])
        assert isinstance((await answers(tickets))[0], InferenceFailed)


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
