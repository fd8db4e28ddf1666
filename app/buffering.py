"""The memory that request bodies may take, all of them together. Used on the event loop only."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class BodyBudget:
    """Bytes of bodies that are being read or answered; bounded, since anyone may send slowly and many at once.

    Args:
        capacity_bytes: Most bytes held at a time.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0

    @contextmanager
    def lend(self) -> Iterator["Loan"]:
        """Lend to one request; what it took comes back when it ends, however it ends."""
        loan = Loan(self)
        try:
            yield loan
        finally:
            self.held_bytes -= loan.taken_bytes


class Loan:
    """What one request took of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self.taken_bytes = 0
        self._budget = budget

    def take(self, count_bytes: int) -> None:
        """Take more.

        Raises:
            Overloaded: That much is not left.
        """
        if self._budget.held_bytes + count_bytes > self._budget.capacity_bytes:
            held, allowed = self._budget.held_bytes, self._budget.capacity_bytes
            detail = f"bodies of {held} bytes are held already, of {allowed} allowed; try again later"
            raise Overloaded(detail, retry_after_s=1)
        self._budget.held_bytes += count_bytes
        self.taken_bytes += count_bytes
