"""Work that is cut off from outside, for a reason that its caller is then told.

What asyncio.timeout is for time, this is for any reason; and it costs a fraction, which counts where it is entered
at every request.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Cutoff:
    """Within it, the task that entered it can be cut off: what it awaits is cancelled, and the reason raised."""

    __slots__ = ("_over", "_reason", "_task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"  # noqa: S101
        self._task = task
        self._reason: Callable[[], Exception] | None = None
        self._over = False

    def cut(self, reason: Callable[[], Exception]) -> None:
        """Cut the task off, if it is still within; on the event loop. Only the first reason counts.

        Args:
            reason: Makes the exception to be raised.
        """
        if self._reason is None and not self._over:
            self._reason = reason
            self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._over = True
        # Cut off and cancelled by somebody else at once: then that counts, and goes on up.
        if self._reason is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._reason() from None
