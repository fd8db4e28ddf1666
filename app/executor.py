"""Batches as they run, on whichever thread took them."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from app.errors import DeadlineExceeded, Draining, InferenceFailed
from app.latency import LatencyCurve
from app.tickets import Answer, Ticket
from app.workers import Clock
from models.errors import DeviceLost

logger = logging.getLogger(__name__)

Infer = Callable[[Sequence[Tensor], Sequence[int | None], int], Sequence[Answer]]


class Tell(Protocol):
    """Where answers and errors go."""

    def __call__(self, answers: Sequence[tuple[Ticket, Answer | Exception]], seconds: float | None = None) -> None:
        """Settle tickets, from any thread; `seconds` are those of a batch that gave answers."""
        ...


class Executor:
    """Runs the batches of a model.

    Args:
        infer: Examples, how much of each answer is wanted, threads to use -> an answer or error each, in order.
        curve: The model's measured latency; kept current here.
        others_wait: Whether more tickets are open than so many.
        tell: Where answers go.
        lose_device: Called once the device does not work any more, from any thread.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        infer: Infer,
        curve: LatencyCurve,
        others_wait: Callable[[int], bool],
        tell: Tell,
        lose_device: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._infer = infer
        self._curve = curve
        self._others_wait = others_wait
        self._tell = tell
        self._lose_device = lose_device
        self._clock = clock

    def run(self, tickets: Sequence[Ticket], threads: int) -> None:
        """Run a batch; one that fails is run again in halves, so that it fails only for whom it must.

        A batch too large for the memory succeeds in halves, and an item that the model cannot take ends
        alone, away from its neighbours.
        """
        wanted = self._still_wanted(tickets, threads)
        if not wanted:
            return
        tickets = [ticket for ticket, _ in wanted]
        start_s = self._clock()
        for ticket in tickets:
            ticket.started_s = ticket.started_s or start_s
        try:
            examples, top_ks = [example for _, example in wanted], [ticket.top_k for ticket in tickets]
            answers = list(zip(tickets, self._infer(examples, top_ks, threads), strict=True))
        except DeviceLost as error:
            self._give_up(tickets, error)
            return
        except Exception as error:
            self._fail_or_halve(tickets, threads, error)
            return
        seconds = self._clock() - start_s
        self._curve.record(len(tickets), seconds, threads)
        for ticket in tickets:
            ticket.finished_s = start_s + seconds
        self._tell(answers, seconds)

    def _give_up(self, tickets: Sequence[Ticket], error: DeviceLost) -> None:
        logger.error("inference failed", exc_info=error)
        self._lose_device()
        refusal = Draining("the service lost its device and is about to stop; ask another instance", 1)
        self._tell([(ticket, refusal) for ticket in tickets])

    def _fail_or_halve(self, tickets: Sequence[Ticket], threads: int, error: Exception) -> None:
        if len(tickets) > 1:
            logger.warning("a batch of %d failed and is run in halves: %r", len(tickets), error)
            middle = len(tickets) // 2
            self.run(tickets[:middle], threads)
            self.run(tickets[middle:], threads)
            return
        logger.error("inference failed", exc_info=error)
        failure = InferenceFailed("the model failed on this item; the service's log says why")
        self._tell([(tickets[0], failure)])

    def _still_wanted(self, tickets: Sequence[Ticket], threads: int) -> list[tuple[Ticket, Tensor]]:
        """Those that somebody waits for, with their examples; those whose time ran out are told.

        While others wait, it has run out once less is left than the batch takes: it would be run in vain.
        """
        needed_s = self._curve.mean_s(len(tickets), threads) if self._others_wait(len(tickets)) else 0.0
        last_s = self._clock() + needed_s
        late = [ticket for ticket in tickets if ticket.deadline_s <= last_s]
        if late:
            error = DeadlineExceeded("the time ran out in the queue")
            self._tell([(ticket, error) for ticket in late])
        # An example is dropped by the event loop when its client goes away, at any moment: it is read once.
        alive = [(ticket, ticket.example) for ticket in tickets if ticket.deadline_s > last_s]
        return [(ticket, example) for ticket, example in alive if example is not None]
