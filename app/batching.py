"""One model's bounded queue: admission, batches, and an answer for every ticket.

Two sides meet here. The event loop admits, cancels and is told of results; worker threads decode, take what waits
and run it. Tickets are counted, settled and released on the event loop only, so each is settled exactly once; the
workers' lock guards nothing but the queue.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from torch import Tensor

from app.correction import Correction
from app.crew import Crew
from app.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    InternalError,
    ModelNotReady,
    Overloaded,
    ServingError,
    forget_frames,
)
from app.executor import Executor, Infer
from app.forecast import Forecast
from app.items import Item, is_quick, is_tiny
from app.latency import LatencyCurve
from app.ready_queue import ReadyQueue
from app.tickets import Answer, Order, Ticket
from app.workers import Backlog, Clock, Job, Share

logger = logging.getLogger(__name__)

Prepare = Callable[[Item], Tensor]

# So little work waits behind no work of tens of milliseconds, and may be done by the event loop itself.
LIGHT_S = 0.002


@dataclass(frozen=True)
class Running:
    """A batch that runs now, how many threads it takes, when it began, and when it is expected to end."""

    tickets: Sequence[Ticket]
    threads: int
    since_s: float
    until_s: float


class Batcher:
    """Admits items, has them decoded, groups them into batches and has those run.

    Args:
        prepare: Item -> example; raises ServingError for what is the item's own fault.
        infer: Examples, how much of each answer is wanted, threads to use -> an answer or error each, in order.
        curve: The model's measured latency; kept current here.
        crew: Who does the work.
        capacity: Most tickets open at a time.
        max_batch_size: Most items in a batch.
        delay_s: How long an idle worker waits for a batch to fill.
        length: Of an example, if they differ in it and are padded to the longest of their batch.
        bounded: Whether a batch takes a time that its shape fixes; what might hang never runs on the event loop.
        on_batch: Told of each batch's size and seconds, on the event loop.
        lose_device: Called once the device does not work any more, from any thread.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        prepare: Prepare,
        infer: Infer,
        curve: LatencyCurve,
        crew: Crew,
        *,
        capacity: int,
        max_batch_size: int,
        delay_s: float = 0.0,
        length: Callable[[Tensor], int] | None = None,
        bounded: bool = False,
        on_batch: Callable[[int, float], None] = lambda _size, _seconds: None,
        lose_device: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.curve = curve
        self.capacity = capacity
        self._prepare = prepare
        self._crew = crew
        self._executor = Executor(infer, curve, self._others_wait, self._tell, lose_device, clock)
        self._forecast = Forecast(curve, crew, max_batch_size)
        self._correction = Correction()
        # Whether a batch of the best size takes next to no time, and whether decoding an item does.
        self.light = self._is_light()
        self._decodes_lightly = True
        self._delay_s = delay_s
        self._bounded = bounded and crew.runners is crew.decoders
        self._on_batch = on_batch
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._here = False
        self._open: set[Ticket] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._lock = crew.runners.lock
        self._ready = ReadyQueue(length)
        self._submitted: list[Ticket] = []
        self._undecoded = 0
        self._closed = False
        # Replaced whole, by whoever holds the lock: the event loop reads it without.
        self._running: tuple[Running, ...] = ()
        crew.runners.add(self, self._unrun)
        crew.decoders.count(self._undecoded_work)

    @property
    def open_tickets(self) -> int:
        """Items admitted and not yet answered."""
        return len(self._open)

    @property
    def running(self) -> int:
        """Batches that run, or hang."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Items admitted that no batch has taken up; on the event loop."""
        return len(self._open) - sum(len(self._open.intersection(batch.tickets)) for batch in self._running)

    @property
    def wait_s(self) -> float:
        """Seconds until what is admitted now is expected to be begun."""
        return self._crew.wait_s(self._clock(), light=self.light and self._decodes_lightly)

    def admit(self, count: int, deadline_s: float, top_k: int | None = 1) -> Order:
        """Take in `count` items, all or none.

        Args:
            count: At least 1.
            deadline_s: On this batcher's clock; the answer is wanted before it.
            top_k: How much of each answer is wanted.

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
        wait_s = self._crew.wait_s(now_s, light=self.light and self._decodes_lightly)
        if len(self._open) + count > self.capacity:
            raise Overloaded(
                f"{len(self._open)} of {self.capacity} places are taken and {count} are wanted; try again later",
                retry_after_s=wait_s,
                # About when one of them is free.
                free_s=now_s + wait_s / len(self._open) if count == 1 else None,
            )
        idle = not self._open
        predicted_s = wait_s + self._delay_s + self._forecast.own_s(count, idle=idle)
        expected_s = predicted_s if idle else predicted_s * self._correction.factor(now_s)
        if now_s + expected_s > deadline_s:
            raise Overloaded(
                f"the answer is expected in {expected_s:.3f} s, but only {deadline_s - now_s:.3f} s are left; "
                "allow more time or try again later",
                retry_after_s=wait_s,
                answer_s=now_s + expected_s if count == 1 else None,
            )
        order = Order(self._loop, None if idle else predicted_s)
        for _ in range(count):
            order.add(Ticket(order, deadline_s, top_k, now_s))
        self._open.update(order.tickets)
        self._idle.clear()
        return order

    def submit(self, order: Order, items: Sequence[Item]) -> None:
        """Have an order's items decoded, and then run."""
        for ticket, item in zip(order.tickets, items, strict=True):
            # The workers' queue holds the ticket, not the bytes: they go when nobody waits for them.
            ticket.item = item
        # What comes in one round of the loop goes to the workers together: to wake them is costly.
        if not self._submitted:
            self._loop.call_soon(self._hand_over)
        self._submitted += order.tickets

    def _hand_over(self, *, busy: bool = False) -> None:
        size = self._forecast.best_size
        # Less than a whole batch waits to be filled, where that is wanted.
        if self._runs_here(size, 1 if busy and not self._delay_s else size):
            self._run_here(size)
            return
        tickets, self._submitted = self._submitted, []
        with self._lock:
            self._undecoded += len(tickets)
        for quick, same in groupby(tickets, lambda ticket: ticket.item is None or is_quick(ticket.item)):
            self._crew.decoders.submit([partial(self._decode, ticket) for ticket in same], quick=quick)

    def _runs_here(self, size: int, least: int) -> bool:
        """Whether the event loop had better run a batch itself than hand it to a thread.

        It has while whole batches and more come in each of its rounds: it is busy then, and what there is too
        little of is the interpreter's lock, for which a thread would have to wait many times in a batch.

        Args:
            size: Of a whole batch.
            least: How many must be there.
        """
        if not self._bounded or len(self._submitted) < least or not self.light:
            return False
        return all(ticket.item is None or is_tiny(ticket.item) for ticket in self._submitted[:size])

    def _run_here(self, size: int) -> None:
        tickets, self._submitted = self._submitted[:size], self._submitted[size:]
        if self._submitted:
            self._loop.call_soon(partial(self._hand_over, busy=True))
        with self._lock:
            self._undecoded += len(tickets)
        self._here = True
        try:
            for ticket in tickets:
                self._decode(ticket)
        finally:
            self._here = False
        with self._lock:
            # A thread that looked just now may have taken them along, or have left something of its own.
            job = self.take(Share(1, alone=False)) if self._ready and not self._closed else None
            if self._ready:
                self._crew.runners.tell(self)
        if job is not None:
            job()

    def put(self, ticket: Ticket, example: Tensor) -> None:
        """Queue a ticket's decoded example; from any thread."""
        with self._lock:
            if ticket.abandoned or self._closed:
                return
            ticket.item, ticket.example = None, example
            ticket.queued_s = self._clock()
            self._ready.append(ticket)
            if not self._here:
                self._crew.runners.tell(self)

    def fail(self, ticket: Ticket, error: Exception) -> None:
        """Settle a ticket that will never have an example; from any thread."""
        self._tell([(ticket, error)])

    def cancel(self, order: Order, error: Exception) -> None:
        """Settle what of an order is still open with an error; on the event loop. Queued items leave at once."""
        given_up = [ticket for ticket in order.tickets if ticket in self._open]
        with self._lock:
            for ticket in given_up:
                ticket.abandoned = True
                self._ready.discard(ticket)  # It may not be decoded yet, or run already.
        self._settle([(ticket, error) for ticket in given_up])

    def drain(self) -> None:
        """Take in nothing more; what was admitted is still answered."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until every admitted item has its answer."""
        await self._idle.wait()

    def give_up_hung(self, longest_s: float) -> bool:
        """If a batch takes too long, fail all that is open and run nothing more; return whether one does."""
        last_s = self._clock() - longest_s
        hung = [ticket for batch in self._running if batch.since_s <= last_s for ticket in batch.tickets]
        if not hung or self._closed:
            return False
        late = InferenceFailed(f"the model did not come back within {longest_s:g} s; it is loaded anew")
        self._settle([(ticket, late) for ticket in hung])
        self.close(ModelNotReady("the model hung on another request, and is loaded anew", retry_after_s=5))
        return True

    def close(self, error: ServingError | None = None) -> None:
        """Run nothing more; a batch that runs ends on its own.

        Args:
            error: What tickets still open fail with; as draining, unless told otherwise.
        """
        self.drain()
        if self._closed:
            return
        with self._lock:
            self._closed = True
            self._ready.clear()
        self._crew.runners.remove(self, self._unrun)
        self._crew.decoders.discount(self._undecoded_work)
        self._crew.close()
        error = error or Draining("the service stopped before this was answered; ask another instance", 1)
        self._settle([(ticket, error) for ticket in self._open])

    # What the workers ask, with their lock held.

    @property
    def due_s(self) -> float | None:
        """When the next batch may be run; None if nothing waits."""
        since_s = self._ready.since_s
        if since_s is None:
            return None
        return since_s + (0.0 if self.full else self._delay_s)

    @property
    def full(self) -> bool:
        """Whether a batch of the best size waits."""
        return len(self._ready) >= self._forecast.best_size

    def take(self, share: Share) -> Job | None:
        """Take a batch out of the queue: this thread's share of what waits, or is about to."""
        fair = math.ceil((len(self._ready) + self._undecoded) / share.takers)
        wanted = min(len(self._ready), self._forecast.best_size, fair)
        tickets = self._ready.take(wanted)
        size = len(tickets)
        self._forecast.learn_batch(wanted, size)
        threads = self.curve.threads_for(size) if share.alone and not self._ready else 1
        now_s = self._clock()
        running = Running(tickets, threads, now_s, now_s + self.curve.mean_s(size, threads))
        self._running = (*self._running, running)
        return partial(self._run, running)

    def _undecoded_work(self, _now_s: float) -> Backlog:
        waiting_s = self._forecast.decode_s(len(self._submitted) + self._undecoded)
        return Backlog(0.0, waiting_s, waiting_s if self._decodes_lightly else 0.0)

    def _unrun(self, now_s: float) -> Backlog:
        left_s, waiting = 0.0, len(self._open)
        for batch in self._running:
            left_s += batch.threads * max(0.0, batch.until_s - now_s)
            waiting -= len(self._open.intersection(batch.tickets))
        waiting_s = self._forecast.run_s(max(0, waiting))
        return Backlog(left_s, waiting_s, left_s + waiting_s if self.light else 0.0)

    def _others_wait(self, than: int) -> bool:
        return len(self._open) > than

    def _is_light(self) -> bool:
        return self.curve.least_s(self._forecast.best_size) <= LIGHT_S

    def _decode(self, ticket: Ticket) -> None:
        try:
            self._decode_or_fail(ticket)
        finally:
            with self._lock:
                self._undecoded -= 1

    def _decode_or_fail(self, ticket: Ticket) -> None:
        item, start_s = ticket.item, self._clock()
        if item is None:
            return
        if start_s >= ticket.deadline_s:
            self.fail(ticket, DeadlineExceeded("the time ran out before the item was decoded"))
            return
        try:
            example = self._prepare(item)
        except ServingError as error:
            self.fail(ticket, error)
        except BaseException:  # A panic in Rust is no Exception.
            logger.exception("decoding failed")
            self.fail(ticket, InternalError("the item could not be decoded; the service's log says why"))
        else:
            self._forecast.learn_decoding(self._clock() - start_s)
            self._decodes_lightly = self._forecast.decode_s(1) <= LIGHT_S
            self.put(ticket, example)

    def _run(self, running: Running) -> None:
        try:
            self._executor.run(running.tickets, running.threads)
            self.light = self._is_light()
        finally:
            with self._lock:
                self._running = tuple(each for each in self._running if each is not running)

    def _tell(self, answers: Sequence[tuple[Ticket, Answer | Exception]], seconds: float | None = None) -> None:
        # From any thread.
        if threading.get_ident() == self._loop_thread:
            self._settle(answers, seconds)
            return
        # A loop that has stopped has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, answers, seconds)

    def _settle(self, answers: Sequence[tuple[Ticket, Answer | Exception]], seconds: float | None = None) -> None:
        now_s = self._clock()
        if seconds is not None:
            self._on_batch(len(answers), seconds)
        for ticket, answer in answers:
            if ticket not in self._open:
                continue
            late = now_s >= ticket.deadline_s and not isinstance(answer, Exception)
            ticket.answer = DeadlineExceeded("the time ran out during inference") if late else answer
            if isinstance(answer, Exception):
                forget_frames(answer)
            ticket.item = ticket.example = None
            self._open.discard(ticket)
            ticket.order.settle_one()
            self._learn_wait(ticket, now_s)
        if not self._open:
            self._idle.set()

    def _learn_wait(self, ticket: Ticket, now_s: float) -> None:
        """Compare a request's time with what was predicted, unless it failed for another reason."""
        expected_s = ticket.order.expected_s
        failed = isinstance(ticket.answer, Exception) and not isinstance(ticket.answer, DeadlineExceeded)
        if expected_s and ticket.order.answered.done() and not failed:
            self._correction.learn(expected_s, now_s - ticket.admitted_s, now_s)
