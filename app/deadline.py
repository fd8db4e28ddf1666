"""The end of a request's time: one timer for all its stages, since each would cost as much as its own work."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Deadline:
    """When a request's time is up, and what is then to happen, which changes from stage to stage.

    Used on the event loop, within a `with`.

    Args:
        at_s: On the monotonic clock.
        passed: Called when it passes.
    """

    __slots__ = ("_passed", "_timer", "at_s")

    def __init__(self, at_s: float, passed: Callable[[], None]) -> None:
        self.at_s = at_s
        self._passed = passed

    def then(self, passed: Callable[[], None]) -> None:
        """Have something else called."""
        self._passed = passed

    def advance(self, at_s: float) -> None:
        """Have it pass earlier, if that is earlier."""
        if at_s < self.at_s:
            self.at_s = at_s
            self._timer.cancel()
            self._start()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _start(self) -> None:
        left_s = max(0.0, self.at_s - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._pass)

    def _pass(self) -> None:
        self._passed()
