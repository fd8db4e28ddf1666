"""CPU threads that decode and run batches, for every model: an idle one takes what is there.

Jobs (decoding) come first in, first out. Sources (models) have batches to run; a full one goes before jobs, so
that memory is not filled with what waits, and one that is not goes after them, so that batches grow while there is
something to decode. Nobody waits for a batch to fill unless a source says so. Nothing polls: an idle thread sleeps
until it is told of work.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, Self

logger = logging.getLogger(__name__)

# To wake a thread and to hand the interpreter's lock to and fro costs about as much as it could save of this.
WORTH_WAKING_S = 0.002

Job = Callable[[], None]
Clock = Callable[[], float]
# Now -> seconds of one thread that are owed.
Backlog = Callable[[float], float]


class Source(Protocol):
    """Something that has batches to run; called with the workers' lock held."""

    @property
    def due_s(self) -> float | None:
        """When its next batch may be run, on the workers' clock; None if it has none."""
        ...

    @property
    def full(self) -> bool:
        """Whether a batch of the best size is there."""
        ...

    def take(self, share: "Share") -> Job | None:
        """Take a batch out; what is returned runs it, without the lock."""
        ...


class Share:
    """What a thread that takes a batch may count on.

    Attributes:
        takers: Threads, this one among them, that are free to run batches.
        alone: Every other thread is idle and nothing else waits, so all cores are free for one batch.
    """

    __slots__ = ("alone", "takers")

    def __init__(self, takers: int, alone: bool) -> None:
        self.takers = takers
        self.alone = alone


class Workers:
    """A fixed number of threads.

    Args:
        threads: How many.
        name: Of the threads, in tracebacks and profiles.
        clock: Monotonic seconds, the sources' own.
    """

    def __init__(self, threads: int, name: str = "work", clock: Clock = time.monotonic) -> None:
        self.threads = threads
        self.lock = threading.Condition()
        self._clock = clock
        self._jobs: deque[Job] = deque()
        self._sources: list[Source] = []
        self._backlogs: list[Backlog] = []
        self._idle = 0
        self._running_batches = 0
        self._closed = False
        self._own: set[int] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]

    def start(self) -> Self:
        """Begin to work."""
        for thread in self._threads:
            thread.start()
        return self

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have jobs done, in order; from any thread."""
        with self.lock:
            self._jobs.extend(jobs)
            # One begins; it wakes others while more is left than it is worth.
            self._wake()

    def add(self, source: Source, backlog_s: Backlog) -> None:
        """Serve a source from now on, and count its backlog."""
        with self.lock:
            self._sources.append(source)
        self.count(backlog_s)

    def remove(self, source: Source, backlog_s: Backlog) -> None:
        """Take nothing more from a source."""
        with self.lock:
            self._sources.remove(source)
        self.discount(backlog_s)

    def count(self, backlog_s: Backlog) -> None:
        """Take a backlog into account; on the event loop, as everything of backlogs."""
        self._backlogs.append(backlog_s)

    def discount(self, backlog_s: Backlog) -> None:
        """Take it into account no more."""
        self._backlogs.remove(backlog_s)

    def wait_s(self, now_s: float) -> float:
        """Seconds until work that comes now is expected to be begun; on the event loop."""
        if self._idle and not self._jobs:
            return 0.0
        return self._owed_s(now_s) / self.threads

    def tell(self) -> None:
        """A source has something new; with the lock held. A thread of these looks by itself when it is done."""
        if threading.get_ident() not in self._own:
            self._wake()

    def close(self) -> None:
        """Take up nothing more; what runs ends on its own."""
        with self.lock:
            self._closed = True
            self._jobs.clear()
            self.lock.notify_all()

    def join(self, patience_s: float) -> None:
        """Wait so long for the threads to end."""
        give_up_s = time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_s - time.monotonic()))

    def _waits(self) -> bool:
        return bool(self._jobs) or any(source.due_s is not None for source in self._sources)

    def _owed_s(self, now_s: float) -> float:
        return sum(backlog_s(now_s) for backlog_s in self._backlogs)

    def _wake(self) -> None:
        if self._idle:
            self.lock.notify()

    def _work(self) -> None:
        with self.lock:
            self._own.add(threading.get_ident())
        while (taken := self._take()) is not None:
            job, is_batch = taken
            try:
                job()
            except Exception:
                # Jobs answer for their own failures; a thread must outlive one that does not.
                logger.exception("a job failed")
            finally:
                if is_batch:
                    with self.lock:
                        self._running_batches -= 1

    def _take(self) -> tuple[Job, bool] | None:
        with self.lock:
            while not self._closed:
                taken = self._next()
                if taken is not None:
                    self._running_batches += taken[1]
                    # What is left is somebody else's, if anybody is free and it is worth waking them.
                    if self._idle and self._waits() and self._owed_s(self._clock()) > WORTH_WAKING_S:
                        self._wake()
                    return taken
                self._idle += 1
                self.lock.wait(self._until_due_s())
                self._idle -= 1
            return None

    def _next(self) -> tuple[Job, bool] | None:
        now_s = self._clock()
        due = [source for source in self._sources if (at_s := source.due_s) is not None and at_s <= now_s]
        for source in due:
            if source.full and (job := self._batch(source, len(due))):
                return job, True
        if self._jobs:
            return self._jobs.popleft(), False
        # The one that has waited longest, so that a busy model does not starve a quiet one.
        for source in sorted(due, key=lambda each: each.due_s or 0.0):
            if job := self._batch(source, len(due)):
                return job, True
        return None

    def _batch(self, source: Source, sources_due: int) -> Job | None:
        alone = self._idle == self.threads - 1 and not self._jobs and sources_due == 1
        return source.take(Share(takers=self.threads - self._running_batches, alone=alone))

    def _until_due_s(self) -> float | None:
        due = [at_s for source in self._sources if (at_s := source.due_s) is not None]
        return max(0.0, min(due) - self._clock()) if due else None
