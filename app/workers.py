"""CPU threads that decode and run batches, for every model: an idle one takes what is there.

Jobs (decoding) and batches go by age: what has waited longest is next, so that no model starves another, and
batches grow while there is older work to decode. Only a full batch goes at once, so that memory is not filled with
what waits. Nobody waits for a batch to fill unless a source says so. Nothing polls: an idle thread sleeps until
it is told of work.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

logger = logging.getLogger(__name__)

# To wake a thread and to hand the interpreter's lock to and fro costs about as much as it could save of this.
WORTH_WAKING_S = 0.002
# Threads that may run a batch on every core: one does while it is alone, and another if that one is held up.
MOST_WIDE = 2

Job = Callable[[], None]
Clock = Callable[[], float]


class Backlog(NamedTuple):
    """Seconds of one thread that are owed to what runs, and to what waits."""

    running_s: float
    waiting_s: float


# Now -> what is owed.
Owed = Callable[[float], Backlog]


class Waiting(NamedTuple):
    """A job, since when it waits, and whether it is known to take next to no time."""

    since_s: float
    quick: bool
    job: Job


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


class Share(NamedTuple):
    """What a thread that takes a batch may count on.

    Attributes:
        takers: Threads, this one among them, that are free to run batches.
        alone: Every other thread is idle and nothing else waits, so all cores are free for one batch.
    """

    takers: int
    alone: bool


class Workers:
    """A fixed number of threads.

    Args:
        threads: How many.
        name: Of the threads, in tracebacks and profiles.
        clock: Monotonic seconds, the sources' own.
    """

    def __init__(self, threads: int, name: str = "work", clock: Clock = time.monotonic) -> None:
        self.threads = threads
        self.lock = threading.RLock()
        self._clock = clock
        self._jobs: deque[Waiting] = deque()
        self._sources: list[Source] = []
        self._owed: list[Owed] = []
        # Whoever slept last is woken first: with little to do it is always the same thread, whose caches are warm.
        self._sleeping: list[threading.Semaphore] = []
        self._wide: set[int] = set()
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

    def submit(self, jobs: Sequence[Job], *, quick: bool = False) -> None:
        """Have jobs done, in order; from any thread.

        Args:
            jobs: What to do.
            quick: They are known to take next to no time: another thread need not be woken for each.
        """
        with self.lock:
            now_s = self._clock()
            self._jobs.extend(Waiting(now_s, quick, job) for job in jobs)
            # One begins; it wakes others while it is worth it.
            self._wake()

    def add(self, source: Source, owed: Owed) -> None:
        """Serve a source from now on, and count what it is owed."""
        with self.lock:
            self._sources.append(source)
        self.count(owed)

    def remove(self, source: Source, owed: Owed) -> None:
        """Take nothing more from a source."""
        with self.lock:
            self._sources.remove(source)
        self.discount(owed)

    def count(self, owed: Owed) -> None:
        """Take what is owed into account; on the event loop, as everything of backlogs."""
        self._owed.append(owed)

    def discount(self, owed: Owed) -> None:
        """Take it into account no more."""
        self._owed.remove(owed)

    def wait_s(self, now_s: float) -> float:
        """Seconds until work that comes now is expected to be begun; on the event loop."""
        backlog = self._backlog(now_s)
        if self._sleeping and not backlog.waiting_s:
            return 0.0
        return sum(backlog) / self.threads

    def tell(self) -> None:
        """A source has something new; with the lock held. A thread of these looks by itself when it is done."""
        if threading.get_ident() not in self._own:
            self._wake()

    def close(self) -> None:
        """Take up nothing more; what runs ends on its own."""
        with self.lock:
            self._closed = True
            self._jobs.clear()
            while self._sleeping:
                self._wake()

    def join(self, patience_s: float) -> None:
        """Wait so long for the threads to end."""
        give_up_s = time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_s - time.monotonic()))

    def _wake(self) -> None:
        if self._sleeping:
            self._sleeping.pop().release()

    def _waits(self) -> bool:
        return bool(self._jobs) or any(source.due_s is not None for source in self._sources)

    def _backlog(self, now_s: float) -> Backlog:
        running_s = waiting_s = 0.0
        for owed in self._owed:
            runs_s, waits_s = owed(now_s)
            running_s += runs_s
            waiting_s += waits_s
        return Backlog(running_s, waiting_s)

    def _work(self) -> None:
        awake = threading.Semaphore(0)
        with self.lock:
            self._own.add(threading.get_ident())
        while (work := self._take(awake)) is not None:
            self._do(work)
            # A sleeping thread must not keep a model alive that was swapped out.
            del work

    def _do(self, work: Waiting | Job) -> None:
        is_batch = not isinstance(work, Waiting)
        try:
            (work.job if isinstance(work, Waiting) else work)()
        except Exception:
            # Jobs answer for their own failures; a thread must outlive one that does not.
            logger.exception("a job failed")
        finally:
            if is_batch:
                with self.lock:
                    self._running_batches -= 1

    def _take(self, awake: threading.Semaphore) -> Waiting | Job | None:
        while True:
            with self.lock:
                if self._closed:
                    return None
                work = self._next()
                if work is not None:
                    self._wake_another_after(work)
                    return work
                self._sleeping.append(awake)
                until_due_s = self._until_due_s()
            if not awake.acquire(timeout=until_due_s):
                with self.lock:
                    # Woken just now all the same: that is taken, or it would count for the next sleep.
                    if awake in self._sleeping:
                        self._sleeping.remove(awake)
                    else:
                        awake.acquire()

    def _wake_another_after(self, work: Waiting | Job) -> None:
        """What is left is somebody else's, if anybody is free, and if it is worth waking them.

        Behind a job that may take any time nothing is left waiting, however little it is.
        """
        if not self._sleeping or not self._waits():
            return
        known = not isinstance(work, Waiting) or work.quick
        if not known or sum(self._backlog(self._clock())) > WORTH_WAKING_S:
            self._wake()

    def _next(self) -> Waiting | Job | None:
        now_s = self._clock()
        waiting = [(at_s, source) for source in self._sources if (at_s := source.due_s) is not None]
        due = sorted((each for each in waiting if each[0] <= now_s), key=lambda each: each[0])
        for at_s, source in due:
            older = not self._jobs or at_s < self._jobs[0].since_s
            if (source.full or older) and (job := self._batch(source, len(due))):
                self._running_batches += 1
                return job
        return self._jobs.popleft() if self._jobs else None

    def _batch(self, source: Source, sources_due: int) -> Job | None:
        nothing_else = len(self._sleeping) == self.threads - 1 and not self._jobs and sources_due == 1
        share = Share(self.threads - self._running_batches, alone=nothing_else and self._may_go_wide())
        return source.take(share)

    def _may_go_wide(self) -> bool:
        # Each thread that ever runs a batch on several keeps as many helpers of its own for good.
        own = threading.get_ident()
        if len(self._wide) < MOST_WIDE:
            self._wide.add(own)
        return own in self._wide

    def _until_due_s(self) -> float | None:
        due = [at_s for source in self._sources if (at_s := source.due_s) is not None]
        return max(0.0, min(due) - self._clock()) if due else None
