"""Which of those that wait go together. An example is nothing but its length here."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.ready_queue import ReadyQueue
from app.tickets import Order, Ticket

pytestmark = pytest.mark.anyio


def length_of(example: Tensor) -> int:
    return int(example)


def waiting(lengths: Sequence[int], length: Callable[[Tensor], int] | None = length_of) -> ReadyQueue:
    queue = ReadyQueue(length)
    order = Order(asyncio.get_running_loop())
    for place, each in enumerate(lengths):
        queue.append(Ticket(order, 0.0, 1, 0.0, queued_s=place, example=torch.tensor(each)))
    return queue


def lengths_of(tickets: Sequence[Ticket]) -> list[int]:
    return [int(ticket.example) for ticket in tickets if ticket.example is not None]


async def test_examples_of_one_length_go_by_age() -> None:
    queue = waiting([3, 1, 2, 4], length=None)
    assert queue.since_s == 0
    assert lengths_of(queue.take(3)) == [3, 1, 2]
    assert (queue.since_s, len(queue)) == (3, 1)
    queue.take(1)
    assert queue.since_s is None


async def test_what_is_padded_goes_with_what_is_of_like_length() -> None:
    # Of three long ones and a short one, under a quarter is padding.
    queue = waiting([30, 5, 31, 6, 29, 5, 1])
    # Each batch begins with whoever waits longest, so that none is passed over for ever.
    assert [lengths_of(queue.take(size)) for size in (7, 3, 1)] == [[30, 31, 29, 6], [5, 5], [1]]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 8))
async def test_a_batch_of_any_lengths_is_mostly_filled_and_has_the_oldest(lengths: list[int], most: int) -> None:
    queue, batches = waiting(lengths), list[list[int]]()
    while (since_s := queue.since_s) is not None:
        tickets = queue.take(min(most, len(queue)))
        assert tickets[0].queued_s == since_s
        batches.append(lengths_of(tickets))
    for batch in batches:
        assert sum(batch) >= 0.75 * max(batch) * len(batch)
        assert len(batch) <= most
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)


async def test_what_nobody_waits_for_leaves_at_once_and_only_once() -> None:
    queue = waiting([1, 2, 3])
    (first,) = queue.take(1)
    queue.discard(first)
    assert len(queue) == 2
    queue.clear()
    assert queue.since_s is None
