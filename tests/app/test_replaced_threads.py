"""Threads that do not come back are replaced; one that does after all ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.workers import Workers
from tests.app.test_workers import PATIENCE_S, Held, ends, until

LONGEST_S = 10.0


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def workers_of(threads: int, held: Held, clock: Clock) -> Iterator[Workers]:
    workers = Workers(threads, clock=clock).start()
    try:
        yield workers
    finally:
        held.gate.set()
        workers.close()
        workers.join(PATIENCE_S)


def alive(workers: Workers) -> int:
    return sum(thread.is_alive() for thread in workers._threads)


def test_a_thread_that_hangs_is_replaced_once() -> None:
    hung, others, clock = Held(), Held(), Clock()
    others.gate.set()
    with workers_of(1, hung, clock) as workers:
        workers.submit([hung.job("hangs"), others.job("waits")])
        hung.is_running()
        assert workers.replace_hung(LONGEST_S) == 0
        clock.now_s += LONGEST_S
        assert workers.replace_hung(LONGEST_S) == 1
        assert ends(others, 1) == ["waits"]
        assert (workers.replace_hung(LONGEST_S), workers.lost) == (0, 1)


def test_a_thread_that_comes_back_after_all_ends() -> None:
    hung, others, clock = Held(), Held(), Clock()
    with workers_of(1, hung, clock) as workers:
        before = alive(workers)
        workers.submit([hung.job("hangs")])
        hung.is_running()
        clock.now_s += LONGEST_S
        assert workers.replace_hung(LONGEST_S) == 1
        hung.gate.set()
        until(lambda: workers.lost == 0 and alive(workers) == before)
        others.gate.set()
        workers.submit([others.job("one"), others.job("two")])
        assert ends(others, 2) == ["one", "two"]


def test_an_idle_thread_does_not_hang() -> None:
    held, clock = Held(), Clock()
    held.gate.set()
    with workers_of(2, held, clock) as workers:
        workers.submit([held.job("one")])
        ends(held, 1)
        until(lambda: len(workers._sleeping) == 2)
        clock.now_s += 10 * LONGEST_S
        assert workers.replace_hung(LONGEST_S) == 0


def test_after_the_end_nothing_is_replaced() -> None:
    held, clock = Held(), Clock()
    with workers_of(1, held, clock) as workers:
        workers.submit([held.job("hangs")])
        held.is_running()
        workers.close()
        clock.now_s += LONGEST_S
        assert workers.replace_hung(LONGEST_S) == 0
