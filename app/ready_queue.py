"""What is decoded and waits to be run; batches are taken out of it."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from torch import Tensor

from app.tickets import Ticket

# Of a batch of examples that differ in length, the least share that is no padding.
LEAST_FILLED = 0.75
# So many of those that wait, at least, are looked at for some of like length.
LOOKED_AT = 128


class ReadyQueue:
    """Tickets with their examples, the oldest first. Used with the workers' lock held.

    Args:
        length: Of an example, if they differ in it and are padded to the longest of their batch.
    """

    def __init__(self, length: Callable[[Tensor], int] | None = None) -> None:
        self._length = length
        # One that is given up is taken out of the middle.
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def since_s(self) -> float | None:
        """Since when the oldest waits; None if nothing does."""
        return next(iter(self._tickets)).queued_s if self._tickets else None

    def append(self, ticket: Ticket) -> None:
        """Let a ticket wait behind all others."""
        self._tickets[ticket] = None

    def discard(self, ticket: Ticket) -> None:
        """Let a ticket wait no more, if it does."""
        self._tickets.pop(ticket, None)

    def clear(self) -> None:
        """Let nothing wait any more."""
        self._tickets.clear()

    def take(self, size: int) -> list[Ticket]:
        """Take out a batch that begins with the oldest; of unlike lengths it may be smaller than `size`."""
        return self._oldest(size) if self._length is None else self._alike(size, self._length)

    def _oldest(self, size: int) -> list[Ticket]:
        return [self._tickets.popitem(last=False)[0] for _ in range(size)]

    def _alike(self, size: int, length: Callable[[Tensor], int]) -> list[Ticket]:
        """Take the oldest, and those nearest to it in length: padding costs as they do."""
        waiting = [
            (ticket, length(ticket.example))
            for ticket in islice(self._tickets, max(LOOKED_AT, 2 * size))
            if ticket.example is not None
        ]
        (oldest, longest), *others = waiting
        others.sort(key=lambda each: abs(each[1] - waiting[0][1]))
        chosen, filled = [oldest], longest
        for ticket, its_length in others[: size - 1]:
            longest, filled = max(longest, its_length), filled + its_length
            if filled < LEAST_FILLED * longest * (len(chosen) + 1):
                break
            chosen.append(ticket)
        for ticket in chosen:
            del self._tickets[ticket]
        return chosen
