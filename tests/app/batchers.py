"""A batcher with a fake model that runs when the test lets it, and a clock that the test sets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import torch
from torch import Tensor

from app.batching import Batcher
from app.crew import Crew
from app.errors import (
    ClientDisconnected,
)
from app.items import Item
from app.latency import LatencyCurve, buckets
from app.tickets import Ticket
from app.workers import Workers

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
    shared: Workers | None = None,
    alone_s: dict[int, dict[int, float]] | None = None,
    used: list[int] | None = None,
    **options: Any,
) -> AsyncIterator[Batcher]:
    """A batcher with workers of its own, unless it shares others'.

    The numbers of threads that its batches were told go into `used`.
    """
    given: dict[str, Any] = {"capacity": 100, "max_batch_size": 8, "clock": Clock()} | options
    curve = LatencyCurve(curve_s or dict.fromkeys(buckets(given["max_batch_size"]), 0.001), alone_s)
    workers = shared or Workers(threads, clock=given["clock"]).start()

    def infer(examples: Sequence[Tensor], _top_ks: Sequence[int | None], threads: int) -> Sequence[Tensor]:
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
        if workers is not shared:
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


async def hold(model: Model, batcher: Batcher) -> list[Ticket]:
    """Occupy the idle worker with one item, so that what comes next waits together."""
    model.gate.clear()
    while model.entered.acquire(blocking=False):  # By the batches of before.
        pass
    first = admit(batcher, 1, FAR_S)
    put(batcher, first, [0])
    await model.is_running()
    return first


def item(value: int) -> Item:
    return Item("text", str(value).encode())


def to_tensor(given: Item) -> Tensor:
    return torch.tensor([int(given.content)])
