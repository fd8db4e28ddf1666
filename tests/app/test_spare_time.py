import math
from collections.abc import Iterable, Iterator
from itertools import cycle

import pytest

from app.spare_time import SpareTime


class Machine:
    """A clock, and threads of which so many are idle, look by look."""

    def __init__(self, idle: Iterable[int], most_s: float = math.inf) -> None:
        self.now_s = 100.0
        self._idle: Iterator[int] = cycle(idle)
        self.spare = SpareTime(lambda: next(self._idle), most_s, lambda: self.now_s, self.work)

    def work(self, seconds: float) -> None:
        self.now_s += seconds

    def pause_s(self) -> float:
        start_s = self.now_s
        self.spare.pause()
        return self.now_s - start_s


@pytest.mark.parametrize(
    ("idle", "times"),
    [
        ([16], 1),
        ([2], 1.5),
        # Two threads that work three quarters of their time have slept three times as long by then.
        ([0, 1], 6),
        ([0, 0, 1], 9),
        # What serves at its limit leaves nothing, and is not to keep a version out for good.
        ([0], 15),
    ],
    ids=["many idle", "idle", "half busy", "busy", "overloaded"],
)
def test_a_pause_is_as_long_as_serving_needs(idle: list[int], times: float) -> None:
    machine = Machine(idle)
    machine.work(0.1)
    assert machine.pause_s() == pytest.approx(0.1 * times, abs=0.02)


def test_only_the_work_since_the_last_pause_counts() -> None:
    machine = Machine([2])
    machine.work(0.1)
    machine.spare.pause()
    assert machine.pause_s() == 0
    machine.work(0.05)
    assert machine.pause_s() == pytest.approx(0.075, abs=0.01)


def test_pieces_too_short_for_a_pause_add_up() -> None:
    machine = Machine([2])
    pauses = []
    for _ in range(4):
        machine.work(0.001)
        pauses.append(machine.pause_s())
    assert pauses[0] == 0
    assert sum(pauses) == pytest.approx(1.5 * 0.004, abs=0.011)
    assert sum(pauses) >= 1.5 * 0.004


def test_a_load_that_has_paused_long_enough_in_all_goes_on() -> None:
    machine = Machine([0], most_s=2.0)
    pauses_s = []
    for _ in range(3):
        machine.work(0.1)
        pauses_s.append(machine.pause_s())
    assert pauses_s == pytest.approx([1.5, 0.5, 0.0], abs=0.02)
