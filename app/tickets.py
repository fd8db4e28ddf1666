"""What a request waits for: an order, and a ticket for each of its items."""

import asyncio
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.items import Item

# Answers are the caller's business, as `infer` gives them.
Answer = Any


class Order:
    """What one request waits for: a ticket for each of its items. Used on the event loop only.

    Args:
        loop: The event loop.
        expected_s: Seconds that it was predicted to take among others; None if it was alone when it came.

    Attributes:
        answered: Done once every ticket is settled.
    """

    __slots__ = ("_left", "answered", "expected_s", "tickets")

    def __init__(self, loop: asyncio.AbstractEventLoop, expected_s: float | None = None) -> None:
        self.expected_s = expected_s
        self.tickets: list[Ticket] = []
        self.answered: asyncio.Future[None] = loop.create_future()
        self._left = 0

    def add(self, ticket: "Ticket") -> None:
        """Wait for one more."""
        self.tickets.append(ticket)
        self._left += 1

    def settle_one(self) -> None:
        """One ticket fewer to wait for."""
        self._left -= 1
        if not self._left and not self.answered.done():
            self.answered.set_result(None)


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the queue for one item, from admission to its answer.

    Attributes:
        deadline_s: On the batcher's clock.
        top_k: How much of the answer is wanted; None: all, as the model gave it.
        answer: What `infer` gave, or the error; None until it is settled, on the event loop.
        admitted_s, queued_s, started_s, finished_s: When it got there, on the same clock; 0 before.
        item: What is to be decoded, until it is; dropped as soon as nobody waits for it.
        example: What is to be run, likewise.
        abandoned: Nobody waits for it any more.
    """

    order: Order
    deadline_s: float
    top_k: int | None
    admitted_s: float
    queued_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    item: Item | None = None
    example: Tensor | None = None
    answer: Answer | Exception | None = None
    abandoned: bool = False
