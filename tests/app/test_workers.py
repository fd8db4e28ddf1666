"""The workers with jobs that end when the test lets them, and sources that say what the test tells them."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.workers import Backlog, Job, Share, Workers

PATIENCE_S = 20.0
# More than it takes to make waking another thread worth it.
OWED_S = 1.0


class Held:
    """Jobs that begin at once and end when they are let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.running: set[str] = set()
        self.done: list[str] = []

    def job(self, name: str) -> Job:
        def run() -> None:
            self.running.add(name)
            self.begun.release()
            assert self.gate.wait(PATIENCE_S)
            self.done.append(name)

        return run

    def is_running(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=PATIENCE_S)


class Model:
    """A source of named batches; what it was offered is kept."""

    def __init__(self, held: Held, best: int = 2, *, light: bool = False) -> None:
        self.held = held
        self.best = best
        self.light = light
        self.waiting: list[str] = []
        self.since_s = 0.0
        self.shares: list[Share] = []

    @property
    def due_s(self) -> float | None:
        return self.since_s if self.waiting else None

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.best

    def take(self, share: Share) -> Job | None:
        self.shares.append(share)
        size = min(self.best, len(self.waiting))
        names = [self.waiting.pop(0) for _ in range(size)]
        return self.held.job("+".join(names))


@contextmanager
def workers_of(threads: int, held: Held) -> Iterator[Workers]:
    workers = Workers(threads).start()
    workers.count(lambda _: Backlog(0.0, OWED_S))
    try:
        yield workers
    finally:
        held.gate.set()
        workers.close()
        workers.join(PATIENCE_S)


def nothing_owed(_now_s: float) -> Backlog:
    return Backlog(0.0, 0.0)


def put(workers: Workers, model: Model, *names: str) -> None:
    with workers.lock:
        model.waiting += names
        workers.tell(model)


def ends(held: Held, count: int) -> list[str]:
    held.gate.set()
    until(lambda: len(held.done) >= count)
    return held.done


def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.001)


def test_jobs_are_done_in_order_and_at_once_by_every_thread() -> None:
    held = Held()
    with workers_of(2, held) as workers:
        workers.submit([held.job(name) for name in "abcd"])
        held.is_running(2)
        assert held.running == {"a", "b"}
        assert sorted(ends(held, 4)) == list("abcd")


def test_a_full_batch_goes_before_jobs_and_a_younger_one_after_them() -> None:
    held = Held()
    with workers_of(1, held) as workers:
        model = Model(held)
        workers.add(model, nothing_owed)
        workers.submit([held.job("first")])
        held.is_running()
        workers.submit([held.job("job")])
        model.since_s = time.monotonic()
        put(workers, model, "x", "y", "z")
        assert ends(held, 4) == ["first", "x+y", "job", "z"]


def test_the_model_that_waits_longest_is_next() -> None:
    held = Held()
    with workers_of(1, held) as workers:
        busy, quiet = Model(held, best=9), Model(held, best=9)
        for model in (busy, quiet):
            workers.add(model, nothing_owed)
        workers.submit([held.job("first")])
        held.is_running()
        busy.since_s, quiet.since_s = 2.0, 1.0
        put(workers, busy, "busy")
        put(workers, quiet, "quiet")
        assert ends(held, 3) == ["first", "quiet", "busy"]


def test_a_batch_has_the_machine_to_itself_only_while_nothing_else_is_there() -> None:
    held = Held()
    with workers_of(2, held) as workers:
        model = Model(held)
        workers.add(model, nothing_owed)
        put(workers, model, "lone")
        held.is_running()
        assert (model.shares[0].alone, model.shares[0].takers) == (True, 2)
        put(workers, model, "second")
        held.is_running()
        assert (model.shares[1].alone, model.shares[1].takers) == (False, 1)


def test_jobs_that_wait_leave_no_batch_the_machine() -> None:
    held = Held()
    with workers_of(2, held) as workers:
        model = Model(held, best=1)
        workers.add(model, nothing_owed)
        with workers.lock:
            # Both threads look only after this: one finds a full batch, the other the job.
            model.waiting.append("x")
            workers.submit([held.job("job")])
            workers.tell(model)
        held.is_running(2)
        assert not model.shares[0].alone


def test_a_job_that_raises_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()

    def broken() -> None:
        raise ValueError("simulated")

    with workers_of(1, held) as workers:
        workers.submit([broken, held.job("after")])
        assert ends(held, 1) == ["after"]
    assert "a job failed" in caplog.text


def test_who_is_idle_is_waited_for_only_if_something_waits_already() -> None:
    held = Held()
    workers = Workers(2).start()
    owed = [Backlog(0.0, 0.0)]
    workers.count(lambda _: owed[0])
    asleep(workers, 2)
    assert workers.wait_s(0.0) == 0
    owed[0] = Backlog(6.0, 0.0)
    assert workers.wait_s(0.0) == 0
    # As when a hundred are admitted at once, before any thread has looked.
    owed[0] = Backlog(0.0, 6.0)
    assert workers.wait_s(0.0) == 3.0
    workers.submit([held.job("a"), held.job("b")])
    held.is_running(2)
    owed[0] = Backlog(6.0, 0.0)
    assert workers.wait_s(0.0) == 3.0
    held.gate.set()
    workers.close()
    workers.join(PATIENCE_S)


def asleep(workers: Workers, count: int) -> None:
    until(lambda: len(workers._sleeping) >= count)


def test_a_little_quick_work_that_waits_is_left_to_the_thread_that_is_awake() -> None:
    held = Held()
    workers = Workers(2).start()
    asleep(workers, 2)
    workers.submit([held.job("a"), held.job("b")], quick=True)
    held.is_running()
    assert held.running == {"a"}
    # What comes later wakes somebody, who does what was left as well.
    workers.submit([held.job("c")], quick=True)
    held.is_running()
    assert held.running == {"a", "b"}
    assert sorted(ends(held, 3)) == ["a", "b", "c"]
    workers.close()
    workers.join(PATIENCE_S)


def test_nothing_is_left_behind_a_job_that_may_take_any_time() -> None:
    held = Held()
    workers = Workers(2).start()
    asleep(workers, 2)
    workers.submit([held.job("large"), held.job("small")])
    held.is_running(2)
    assert held.running == {"large", "small"}
    held.gate.set()
    workers.close()
    workers.join(PATIENCE_S)


def test_an_older_batch_that_is_not_full_goes_before_younger_jobs() -> None:
    held = Held()
    with workers_of(1, held) as workers:
        busy, quiet = Model(held, best=1), Model(held, best=9)
        for model in (busy, quiet):
            workers.add(model, nothing_owed)
        workers.submit([held.job("first")])
        held.is_running()
        put(workers, quiet, "quiet")
        quiet.since_s = time.monotonic()
        # However much of another model comes later.
        workers.submit([held.job(f"job {number}") for number in range(5)])
        busy.since_s = time.monotonic() + 1e-6
        put(workers, busy, "full")
        done = ends(held, 8)
        assert done.index("quiet") < done.index("job 0")


def test_light_work_does_not_wait_behind_what_every_thread_does() -> None:
    held, light = Held(), Held()
    light.gate.set()
    with workers_of(2, held) as workers:
        heavy_model, light_model = Model(held, best=1), Model(light, best=1, light=True)
        for model in (heavy_model, light_model):
            workers.add(model, nothing_owed)
        workers.submit([held.job("a"), held.job("b")])
        held.is_running(2)
        put(workers, heavy_model, "heavy")
        workers.submit([held.job("c")])
        put(workers, light_model, "batch")
        workers.submit([light.job("job")], quick=True)
        light.is_running(2)
        assert held.running == {"a", "b"}
        assert light_model.shares == [Share(1, alone=False)]


def test_light_work_is_left_to_a_thread_that_does_such_work() -> None:
    held, light = Held(), Held()
    with workers_of(2, held) as workers:
        workers.submit([held.job("heavy")])
        held.is_running()
        workers.submit([light.job("a")], quick=True)
        light.is_running()
        workers.submit([light.job("b")], quick=True)
        until(lambda: bool(workers._spare_sleeping))
        light.gate.set()
        assert ends(light, 2) == ["a", "b"]


def test_light_work_is_left_to_a_thread_that_is_being_woken() -> None:
    light = Held()
    light.gate.set()
    with workers_of(1, light) as workers:
        asleep(workers, 1)
        until(lambda: bool(workers._spare_sleeping))
        with workers.lock:
            workers.submit([light.job("a")], quick=True)
            workers.submit([light.job("b")], quick=True)
            assert workers._spare_sleeping
        assert ends(light, 2) == ["a", "b"]


def test_light_work_is_taken_over_from_a_thread_that_takes_up_other_work() -> None:
    held, first, light = Held(), Held(), Held()
    with workers_of(1, held) as workers:
        workers.submit([first.job("light")], quick=True)
        first.is_running()
        workers.submit([held.job("heavy")])
        workers.submit([light.job("later")], quick=True)
        first.gate.set()
        held.is_running()
        light.is_running()
        light.gate.set()
        assert ends(light, 1) == ["later"]


def test_what_a_light_job_leaves_to_others_is_taken_by_them() -> None:
    held, light = Held(), Held()
    with workers_of(1, held) as workers:
        model = Model(held)
        workers.add(model, nothing_owed)
        done = threading.Event()

        def decode() -> None:
            light.begun.release()
            assert light.gate.wait(PATIENCE_S)
            put(workers, model, "x")
            done.set()

        workers.submit([held.job("heavy")])
        held.is_running()
        workers.submit([decode], quick=True)
        light.is_running()
        held.gate.set()
        asleep(workers, 1)
        light.gate.set()
        assert ends(held, 2) == ["heavy", "x"]


def test_light_work_is_not_expected_to_wait_for_other_work() -> None:
    held = Held()
    with workers_of(2, held) as workers:
        workers.count(lambda _: Backlog(0.5, 0.5, 0.25))
        workers.submit([held.job("a"), held.job("b")])
        held.is_running(2)
        assert workers.wait_s(0.0) == OWED_S
        assert workers.wait_s(0.0, light=True) == 0.25


def test_few_threads_ever_run_a_batch_on_every_core() -> None:
    held = Held()
    held.gate.set()
    with workers_of(6, held) as workers:
        model = Model(held, best=1)
        workers.add(model, nothing_owed)
        for number in range(40):
            put(workers, model, str(number))
            ends(held, number + 1)
        assert len(workers._wide) <= 2


def test_a_thread_that_sleeps_keeps_nothing_of_what_it_did() -> None:
    class Weights:
        pass

    held = Held()
    held.gate.set()
    with workers_of(2, held) as workers:
        weights = Weights()
        kept = weakref.ref(weights)

        def job(_weights: Weights = weights) -> None:
            held.done.append("job")

        workers.submit([job])
        del job, weights
        ends(held, 1)
        asleep(workers, 2)
        assert kept() is None


def test_nothing_is_taken_from_a_source_that_was_removed() -> None:
    held = Held()
    with workers_of(1, held) as workers:
        model = Model(held)

        workers.add(model, nothing_owed)
        workers.remove(model, nothing_owed)
        put(workers, model, "x")
        workers.submit([held.job("job")])
        assert ends(held, 1) == ["job"]
        assert model.waiting == ["x"]


def test_idle_threads_use_no_processor_time() -> None:
    held = Held()
    with workers_of(4, held) as workers:
        workers.submit([held.job(name) for name in "abcd"])
        ends(held, 4)
        before_s = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - before_s < 0.01
