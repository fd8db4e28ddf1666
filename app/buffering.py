"""The memory that request bodies may take, all of them together. Used on the event loop only."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from app.errors import BodyTooLarge, Overloaded


class BodyBudget:
    """Bytes of bodies that are being read or answered; bounded, since anyone may send slowly and many at once.

    Args:
        capacity_bytes: Most bytes held at a time.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0

    def lend(self) -> "Loan":
        """Lend to one request."""
        return Loan(self)


class Loan:
    """What one request took of the budget; it comes back at the end of the `with`, however that ends.

    If some of its work still goes on then, it comes back when that ends.
    """

    def __init__(self, budget: BodyBudget) -> None:
        self.taken_bytes = 0
        self._budget = budget
        self._keepers = 0

    def take(self, count_bytes: int) -> None:
        """Take more.

        Raises:
            Overloaded: That much is not left.
            BodyTooLarge: There is never that much.
        """
        if self.taken_bytes + count_bytes > self._budget.capacity_bytes:
            raise BodyTooLarge(
                f"the request takes over {self._budget.capacity_bytes} bytes of memory; send less at once"
            )
        if self._budget.held_bytes + count_bytes > self._budget.capacity_bytes:
            held, allowed = self._budget.held_bytes, self._budget.capacity_bytes
            detail = f"bodies of {held} bytes are held already, of {allowed} allowed; try again later"
            raise Overloaded(detail, retry_after_s=1)
        self._budget.held_bytes += count_bytes
        self.taken_bytes += count_bytes

    def keep_until(self, work: Future[Any]) -> None:
        """Keep all of it until some work of a thread is done too, or given up before it began."""
        loop = asyncio.get_running_loop()
        self.__enter__()

        def done(_work: Future[Any]) -> None:
            with suppress(RuntimeError):  # The loop has stopped, and nobody borrows any more.
                loop.call_soon_threadsafe(self.__exit__, None, None, None)

        work.add_done_callback(done)

    def __enter__(self) -> Self:
        self._keepers += 1
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._keepers -= 1
        if not self._keepers:
            self._budget.held_bytes -= self.taken_bytes
