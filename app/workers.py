"""CPU threads that decode and run batches, for every model: an idle one takes what is there.

Jobs (decoding) and batches go by age: what has waited longest is next, so that no model starves another, and
batches grow while there is older work to decode. Only a full batch goes at once, so that memory is not filled with
what waits. Nobody waits for a batch to fill unless a source says so. Nothing polls: an idle thread sleeps until
it is told of work.

What takes microseconds need not wait behind what takes a core for a tenth of a second: while every thread does
such work, one more thread, which the others do not count, does what is light. The system shares the cores out.
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
    """Seconds of one thread that are owed to what runs, and to what waits; of both, how many to what is light."""

    running_s: float
    waiting_s: float
    light_s: float = 0.0


# Now -> what is owed.
Owed = Callable[[float], Backlog]


class Waiting(NamedTuple):
    """A job, and since when it waits."""

    since_s: float
    job: Job


class Work(NamedTuple):
    """What a thread takes: a job or a batch, and whether it is known to take next to no time."""

    job: Job
    light: bool
    is_batch: bool


class Source(Protocol):
    """Something that has batches to run; called with the workers' lock held.

    Attributes:
        light: Whether a batch takes next to no time.
    """

    light: bool

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
        self._quick: deque[Waiting] = deque()
        self._slow: deque[Waiting] = deque()
        self._sources: list[Source] = []
        self._owed: list[Owed] = []
        # Whoever slept last is woken first: with little to do it is always the same thread, whose caches are warm.
        self._sleeping: list[threading.Semaphore] = []
        self._spare_sleeping: list[threading.Semaphore] = []
        self._wide: set[int] = set()
        self._doing: dict[int, Work] = {}
        # What each thread does, the one beside among them, and since when; and who did not come back from it.
        self._since_s: dict[int, float] = {}
        self._lost: set[int] = set()
        self._name = name
        self._closed = False
        self._own: set[int] = set()
        self._beside: set[int] = set()
        self._threads = [self._thread(self._work, str(index)) for index in range(threads)]
        self._threads.append(self._thread(self._work_beside, "light"))

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
            (self._quick if quick else self._slow).extend(Waiting(now_s, job) for job in jobs)
            # One begins; it wakes others while it is worth it.
            self._wake(light=quick)

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

    def wait_s(self, now_s: float, *, light: bool = False) -> float:
        """Seconds until work that comes now is expected to be begun, `light` or not; on the event loop."""
        backlog = self._backlog(now_s)
        if self._sleeping and not backlog.waiting_s:
            return 0.0
        behind_all_s = (backlog.running_s + backlog.waiting_s) / self.threads
        return min(behind_all_s, backlog.light_s) if light else behind_all_s

    def tell(self, source: Source) -> None:
        """A source has something new; with the lock held. A thread of these looks by itself when it is done."""
        if threading.get_ident() not in self._own:
            self._wake(light=source.light)

    @property
    def idle(self) -> int:
        """Threads that sleep now."""
        return len(self._sleeping)

    @property
    def lost(self) -> int:
        """Threads that were replaced and have not come back."""
        return len(self._lost)

    def replace_hung(self, longest_s: float) -> int:
        """Replace each thread that has been at one job or batch for too long; return how many.

        One that comes back after all ends.
        """
        with self.lock:
            if self._closed:
                return 0
            last_s = self._clock() - longest_s
            hung = [own for own, since_s in self._since_s.items() if since_s <= last_s]
            for own in hung:
                self._replace(own)
        return len(hung)

    def close(self) -> None:
        """Take up nothing more; what runs ends on its own."""
        with self.lock:
            self._closed = True
            self._quick.clear()
            self._slow.clear()
            while self._sleeping:
                self._sleeping.pop().release()
            self._wake_spare()

    def join(self, patience_s: float) -> None:
        """Wait so long for the threads to end."""
        give_up_s = time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_s - time.monotonic()))

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        return threading.Thread(target=target, name=f"{self._name}-{name}", daemon=True)

    def _replace(self, own: int) -> None:
        target = self._work_beside if own in self._beside else self._work
        instead = self._thread(target, f"instead-{len(self._threads)}")
        instead.start()
        self._threads.append(instead)
        self._lost.add(own)
        del self._since_s[own]
        self._doing.pop(own, None)
        self._own.discard(own)
        self._wide.discard(own)
        self._beside.discard(own)

    def _wake(self, *, light: bool) -> None:
        if self._sleeping:
            self._sleeping.pop().release()
        elif light and self._all_do_other_work():
            self._wake_spare()

    def _wake_spare(self) -> None:
        if self._spare_sleeping:
            self._spare_sleeping.pop().release()

    def _all_do_other_work(self) -> bool:
        # One that is only being woken will look by itself.
        return len(self._doing) == self.threads and not any(work.light for work in self._doing.values())

    def _waits(self, *, light: bool = False) -> bool:
        jobs = self._quick if light else self._quick or self._slow
        return bool(jobs) or any(source.due_s is not None for source in self._sources_of(light=light))

    def _sources_of(self, *, light: bool) -> Sequence[Source]:
        return [source for source in self._sources if source.light] if light else self._sources

    def _backlog(self, now_s: float) -> Backlog:
        running_s = waiting_s = light_s = 0.0
        for owed in self._owed:
            runs_s, waits_s, of_it_light_s = owed(now_s)
            running_s += runs_s
            waiting_s += waits_s
            light_s += of_it_light_s
        return Backlog(running_s, waiting_s, light_s)

    def _work(self) -> None:
        awake, own = threading.Semaphore(0), threading.get_ident()
        with self.lock:
            self._own.add(own)
        while (work := self._take(awake, own)) is not None:
            _do(work)
            # A sleeping thread must not keep a model alive that was swapped out.
            del work

    def _work_beside(self) -> None:
        awake, own = threading.Semaphore(0), threading.get_ident()
        with self.lock:
            self._beside.add(own)
        while (work := self._take_light(awake, own)) is not None:
            _do(work)
            del work

    def _take(self, awake: threading.Semaphore, own: int) -> Work | None:
        while True:
            with self.lock:
                self._doing.pop(own, None)
                if self._has_ended(own):
                    return None
                work = self._next()
                if work is not None:
                    self._doing[own], self._since_s[own] = work, self._clock()
                    self._wake_another_after(work)
                    return work
                self._sleeping.append(awake)
                until_due_s = self._until_due_s()
            self._sleep(self._sleeping, awake, until_due_s)

    def _has_ended(self, own: int) -> bool:
        """Whether a thread that just came back has nothing more to do here."""
        self._since_s.pop(own, None)
        if own in self._lost:
            self._lost.discard(own)
            return True
        return self._closed

    def _take_light(self, awake: threading.Semaphore, own: int) -> Work | None:
        while True:
            with self.lock:
                if self._has_ended(own):
                    return None
                in_charge = self._all_do_other_work()
                work = self._next(light=True) if in_charge else None
                if work is not None:
                    self._since_s[own] = self._clock()
                    return work
                self._spare_sleeping.append(awake)
                until_due_s = self._until_due_s(light=True) if in_charge else None
            self._sleep(self._spare_sleeping, awake, until_due_s)

    def _sleep(
        self, sleeping: list[threading.Semaphore], awake: threading.Semaphore, until_due_s: float | None
    ) -> None:
        if not awake.acquire(timeout=until_due_s):
            with self.lock:
                # Woken just now all the same: that is taken, or it would count for the next sleep.
                if awake in sleeping:
                    sleeping.remove(awake)
                else:
                    awake.acquire()

    def _wake_another_after(self, work: Work) -> None:
        """What is left is somebody else's, if anybody is free, and if it is worth waking them.

        Behind a job that may take any time nothing is left waiting, however little it is.
        """
        if not self._sleeping:
            if self._spare_sleeping and not work.light and self._waits(light=True):
                self._wake(light=True)
            return
        if not self._waits():
            return
        known = work.is_batch or work.light
        backlog = self._backlog(self._clock()) if known else None
        if backlog is None or backlog.running_s + backlog.waiting_s > WORTH_WAKING_S:
            self._wake(light=False)

    def _next(self, *, light: bool = False) -> Work | None:
        now_s = self._clock()
        sources = self._sources_of(light=light)
        waiting = [(at_s, source) for source in sources if (at_s := source.due_s) is not None]
        due = sorted((each for each in waiting if each[0] <= now_s), key=lambda each: each[0])
        jobs = self._quick if light else self._older_jobs()
        for at_s, source in due:
            older = not jobs or at_s < jobs[0].since_s
            if (source.full or older) and (job := source.take(self._share(len(due), light=light))):
                return Work(job, source.light, is_batch=True)
        return Work(jobs.popleft().job, jobs is self._quick, is_batch=False) if jobs else None

    def _older_jobs(self) -> deque[Waiting]:
        if self._quick and self._slow:
            return min(self._quick, self._slow, key=lambda jobs: jobs[0].since_s)
        return self._quick or self._slow

    def _share(self, sources_due: int, *, light: bool) -> Share:
        if light:
            return Share(1, alone=False)
        others_sleep = len(self._sleeping) == self.threads - 1
        nothing_else = others_sleep and sources_due == 1 and not self._quick and not self._slow
        running = sum(work.is_batch for work in self._doing.values())
        return Share(self.threads - running, alone=nothing_else and self._may_go_wide())

    def _may_go_wide(self) -> bool:
        # Each thread that ever runs a batch on several keeps as many helpers of its own for good.
        own = threading.get_ident()
        if len(self._wide) < MOST_WIDE:
            self._wide.add(own)
        return own in self._wide

    def _until_due_s(self, *, light: bool = False) -> float | None:
        due = [at_s for source in self._sources_of(light=light) if (at_s := source.due_s) is not None]
        return max(0.0, min(due) - self._clock()) if due else None


def _do(work: Work) -> None:
    try:
        work.job()
    except BaseException:
        # Jobs answer for their own failures; a thread must outlive one that does not, and be it a panic in Rust.
        logger.exception("a job failed")
