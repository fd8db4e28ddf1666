"""One model's bounded queue: admission, batches, and an answer for every ticket.

Two sides meet here. The event loop admits, cancels and is told of results; one worker thread takes what
waits and runs it. Tickets are counted, settled and released on the event loop only, so each is
settled exactly once; the lock guards nothing but the queue.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from app.errors import DeadlineExceeded, Draining, InferenceFailed, Overloaded
from app.items import Item
from app.latency import LatencyCurve

logger = logging.getLogger(__name__)

# What a model gives for one item: scores of shape K; or tokens of shape BT and scores of shape B.
Output = Tensor | tuple[Tensor, Tensor]
Infer = Callable[[Sequence[Tensor]], Sequence[Output]]
Clock = Callable[[], float]


@dataclass(eq=False)
class Ticket:
    """A place in the queue for one item, from admission to its answer.

    Attributes:
        deadline_s: On the batcher's clock.
        answer: The output, or the error; settled on the event loop.
        admitted_s, queued_s, started_s, finished_s: When it got there, on the same clock; 0 before.
        item: What is to be decoded, until it is; dropped as soon as nobody waits for it.
        example: What is to be run, likewise.
        abandoned: Nobody waits for it any more.
    """

    deadline_s: float
    answer: "asyncio.Future[Output]"
    admitted_s: float
    queued_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    item: Item | None = None
    example: Tensor | None = None
    abandoned: bool = False


class Batcher:
    """Admits items, groups them into batches and runs those on a thread of its own.

    Args:
        infer: Examples -> an output for each, in order; may raise.
        curve: The model's measured latency; kept current here.
        capacity: Most tickets open at a time.
        max_batch_size: Most items in a batch.
        delay_s: How long an idle worker waits for a batch to fill.
        on_batch: Told of each batch's size and seconds, on the worker's thread.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        infer: Infer,
        curve: LatencyCurve,
        *,
        capacity: int,
        max_batch_size: int,
        delay_s: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda _size, _seconds: None,
        clock: Clock = time.monotonic,
        name: str = "model",
    ) -> None:
        self.curve = curve
        self.capacity = capacity
        self._infer = infer
        self._max_batch_size = max_batch_size
        self._delay_s = delay_s
        self._on_batch = on_batch
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._open: set[Ticket] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()
        self._closed = False
        # The batch that runs now and when it is expected to end. Replaced whole, by the worker.
        self._running: tuple[Sequence[Ticket], float] = ((), 0.0)
        self._worker = threading.Thread(target=self._work, name=f"infer-{name}", daemon=True)
        self._worker.start()

    @property
    def open_tickets(self) -> int:
        """Items admitted and not yet answered."""
        return len(self._open)

    def admit(self, count: int, deadline_s: float, decoding_s: float = 0.0) -> list[Ticket]:
        """Take in `count` items, all or none.

        Args:
            count: At least 1.
            deadline_s: On this batcher's clock; the answer is wanted before it.
            decoding_s: How long decoding them is expected to take, with what is ahead of them there.

        Raises:
            Draining: Nothing is taken in any more.
            Overloaded: The queue has no room for them, or they would miss the deadline.
            DeadlineExceeded: The deadline has passed already.
        """
        now_s = self._clock()
        if self._draining:
            raise Draining("the service is about to stop; ask another instance", retry_after_s=1)
        if now_s >= deadline_s:
            raise DeadlineExceeded("the time ran out before the request was admitted")
        wait_s = self._wait_s(now_s) + decoding_s
        if len(self._open) + count > self.capacity:
            raise Overloaded(
                f"{len(self._open)} of {self.capacity} places are taken and {count} are wanted; try again later",
                retry_after_s=wait_s,
            )
        # An idle worker is asked only what no batch ever beat: a slow spell must not refuse the very request
        # that would show it to be over.
        own_s = self._delay_s + (self.curve.work_s(count) if self._open else self._least_s(count))
        if now_s + wait_s + own_s > deadline_s:
            raise Overloaded(
                f"the answer is expected in {wait_s + own_s:.3f} s, but only {deadline_s - now_s:.3f} s are left; "
                "allow more time or try again later",
                retry_after_s=wait_s,
            )
        tickets = [Ticket(deadline_s, self._loop.create_future(), now_s) for _ in range(count)]
        self._open.update(tickets)
        self._idle.clear()
        return tickets

    def put(self, ticket: Ticket, example: Tensor) -> None:
        """Queue a ticket's decoded example; from any thread."""
        with self._changed:
            if ticket.abandoned or self._closed:
                return
            ticket.item, ticket.example = None, example
            ticket.queued_s = self._clock()
            self._queue.append(ticket)
            self._changed.notify()

    def fail(self, ticket: Ticket, error: Exception) -> None:
        """Settle a ticket that will never have an example; from any thread."""
        self._tell([(ticket, error)])

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Give up tickets nobody waits for; on the event loop. Queued ones leave the queue at once."""
        with self._changed:
            for ticket in tickets:
                ticket.abandoned = True
                with suppress(ValueError):  # It may not be decoded yet, or run already.
                    self._queue.remove(ticket)
        for ticket in tickets:
            ticket.answer.cancel()
            self._release(ticket)

    def drain(self) -> None:
        """Take in nothing more; what was admitted is still answered."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until every admitted item has its answer."""
        await self._idle.wait()

    async def close(self, patience_s: float = 5.0) -> None:
        """Stop the worker after the batch it runs, waiting so long for it; tickets still open fail as draining."""
        self.drain()
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
        for ticket in list(self._open):
            self._settle([(ticket, Draining("the service stopped before this item was reached"))])
        await asyncio.to_thread(self._worker.join, patience_s)

    def _wait_s(self, now_s: float) -> float:
        running, until_s = self._running
        wanted = sum(ticket in self._open for ticket in running)
        return (max(0.0, until_s - now_s) if running else 0.0) + self.curve.work_s(len(self._open) - wanted)

    def _least_s(self, count: int) -> float:
        full, rest = divmod(count, self._max_batch_size)
        return full * self.curve.least_s(self._max_batch_size) + (self.curve.least_s(rest) if rest else 0.0)

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            self._infer_or_halve(batch)

    def _take(self) -> list[Ticket] | None:
        with self._changed:
            self._running = ((), 0.0)
            while not self._queue:
                if self._closed:
                    return None
                self._changed.wait()
            if self._delay_s:
                self._changed.wait_for(self._is_full, timeout=self._delay_s)
            size = min(len(self._queue), self._batch_size())
            taken = [self._queue.popleft() for _ in range(size)]
            self._running = (taken, self._clock() + self.curve.mean_s(max(1, size)))
            return taken

    def _is_full(self) -> bool:
        return self._closed or len(self._queue) >= self._batch_size()

    def _batch_size(self) -> int:
        return min(self._max_batch_size, self.curve.best_size)

    def _still_wanted(self, tickets: Sequence[Ticket]) -> list[tuple[Ticket, Tensor]]:
        """Those that somebody waits for, with their examples; those whose time ran out are told."""
        now_s = self._clock()
        late = [ticket for ticket in tickets if ticket.deadline_s <= now_s]
        if late:
            error = DeadlineExceeded("the time ran out in the queue")
            self._tell([(ticket, error) for ticket in late])
        # An example is dropped by the event loop when its client goes away, at any moment: it is read once.
        alive = [(ticket, ticket.example) for ticket in tickets if ticket.deadline_s > now_s]
        return [(ticket, example) for ticket, example in alive if example is not None]

    def _infer_or_halve(self, tickets: list[Ticket]) -> None:
        """Run a batch; one that fails is run again in halves, so that it fails only for whom it must.

        A batch too large for the memory succeeds in halves, and an item that the model cannot take ends
        alone, away from its neighbours.
        """
        wanted = self._still_wanted(tickets)
        if not wanted:
            return
        tickets = [ticket for ticket, _ in wanted]
        start_s = self._clock()
        for ticket in tickets:
            ticket.started_s = ticket.started_s or start_s
        try:
            outputs = self._infer([example for _, example in wanted])
            answers = list(zip(tickets, outputs, strict=True))
        except Exception as error:
            if len(tickets) > 1:
                logger.warning("a batch of %d failed and is run in halves: %r", len(tickets), error)
                middle = len(tickets) // 2
                self._infer_or_halve(tickets[:middle])
                self._infer_or_halve(tickets[middle:])
                return
            logger.exception("inference failed")
            failure = InferenceFailed("the model failed on this item; the service's log says why")
            self._tell([(tickets[0], failure)])
            return
        seconds = self._clock() - start_s
        self.curve.record(len(tickets), seconds)
        self._on_batch(len(tickets), seconds)
        for ticket in tickets:
            ticket.finished_s = start_s + seconds
        self._tell(answers)

    def _settle(self, answers: Sequence[tuple[Ticket, Output | Exception]]) -> None:
        now_s = self._clock()
        for ticket, answer in answers:
            self._release(ticket)
            if ticket.answer.done():
                continue
            if isinstance(answer, Exception):
                ticket.answer.set_exception(answer)
            elif now_s >= ticket.deadline_s:
                ticket.answer.set_exception(DeadlineExceeded("the time ran out during inference"))
            else:
                ticket.answer.set_result(answer)

    def _release(self, ticket: Ticket) -> None:
        ticket.item = ticket.example = None
        self._open.discard(ticket)
        if not self._open:
            self._idle.set()

    def _tell(self, answers: Sequence[tuple[Ticket, Output | Exception]]) -> None:
        # From any thread. A loop that has stopped has nobody left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, answers)
