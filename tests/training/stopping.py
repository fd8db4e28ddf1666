"""Trainings that end before their time."""

import io
from collections.abc import Callable

from torch import Tensor

from training.progress import Progress


class Stopping(Progress):
    """Stops the run after so many steps, as a kill does or as Ctrl-C does."""

    def __init__(self, after: int, stop: Callable[[], None]) -> None:
        super().__init__(io.StringIO(), silent=True)
        self.left, self.stop = after, stop

    def step(self, means: Tensor) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop()


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed
