"""The time that serving leaves: who loads a model beside it takes a part of that, and no more."""

import math
import time
from collections.abc import Callable

from app.workers import Clock

# For each second of work the threads that serve are to have slept so many, all together: what queued up behind
# a piece of it has gone before the next.
SLEPT = 3.0
# A pause, in times of the work: at least, and at most, for what is published is to go live where none of them ever
# sleeps, too.
LEAST_REST = 1.0
MOST_REST = 15.0
# Less is not worth a pause, and is made up for at the next.
PIECE_S = 0.002
LOOK_INTERVAL_S = 0.005


class SpareTime:
    """Has one thread pause between the pieces of its work, for as long as serving needs.

    Args:
        idle: How many of the threads that serve sleep now.
        most_s: Of all pauses together; then there are no more.
        clock: Monotonic seconds.
        sleep: For so many seconds.
    """

    def __init__(
        self,
        idle: Callable[[], int],
        most_s: float = math.inf,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._idle = idle
        self._left_s = most_s
        self._clock = clock
        self._sleep = sleep
        self._since_s = clock()

    def pause(self) -> None:
        """Leave the processors to others, in proportion to the work since the last pause."""
        # By the clock, not of the processor: what waited for it worked among those who need it.
        worked_s = self._clock() - self._since_s
        if worked_s < PIECE_S:
            return
        # A lower priority would not do: a thread that waits for the processor may hold the interpreter's lock.
        slept_s, start_s, most_s = 0.0, self._clock(), min(MOST_REST * worked_s, self._left_s)
        while (rested_s := self._clock() - start_s) < most_s:
            if slept_s >= SLEPT * worked_s and rested_s >= LEAST_REST * worked_s:
                break
            idle, before_s = self._idle(), self._clock()
            self._sleep(LOOK_INTERVAL_S)
            slept_s += idle * (self._clock() - before_s)
        self._left_s -= rested_s
        self._since_s = self._clock()
