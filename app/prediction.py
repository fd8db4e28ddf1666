"""One request through the stages: resolve, admit, decode, batch, respond.

Admission comes before decoding, so that a refusal costs no decoding, and what waits in the pool is bounded by
the same count as the queue.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.batching import Clock, Ticket
from app.decoding import Decoder
from app.errors import DeadlineExceeded, InvalidRequest, ServingError
from app.items import Item
from app.metrics import Metrics
from app.registry import LiveModel, Registry
from app.responding import to_answer
from app.schemas import Prediction, TimingMs, WrittenText


@dataclass(frozen=True)
class Ask:
    """What a request wants to know, of at least one good item; `deadline_s` is on the monotonic clock."""

    items: Sequence[Item | ServingError]
    model: str | None
    version: str | None
    top_k: int
    received_s: float
    deadline_s: float


@dataclass(frozen=True)
class Answer:
    """A prediction or an error for each item, in order."""

    model: LiveModel
    outcomes: list[Prediction | WrittenText | ServingError]
    timing: TimingMs


class Predictor:
    """Answers requests with what is live."""

    def __init__(
        self, registry: Registry, decoder: Decoder, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        self.registry = registry
        self._decoder = decoder
        self._metrics = metrics
        self._clock = clock

    async def predict(self, ask: Ask) -> Answer:
        """Answer a request; cancelling this call cancels its items.

        Raises:
            ServingError: The request as a whole is refused.
        """
        model = self._resolve(ask)
        items = [_checked(item, model) for item in ask.items]
        good = [item for item in items if isinstance(item, Item)]
        # No await between resolving and admitting: a version cannot be swapped out in between.
        tickets = self._admit(model, len(good), ask.deadline_s) if good else []
        for ticket, item in zip(tickets, good, strict=True):
            self._decoder.submit(model.batcher, ticket, item, model.loaded.preparation)
        await self._settle(model, tickets, ask.deadline_s)
        answers = iter(tickets)
        outcomes = [
            _outcome(next(answers), model, ask.top_k) if isinstance(item, Item) else item for item in items
        ]
        timing = _timing(tickets, self._clock() - ask.received_s)
        self._count(model, outcomes, timing)
        return Answer(model, outcomes, timing)

    def _resolve(self, ask: Ask) -> LiveModel:
        if ask.model is not None:
            return self.registry.resolve(ask.model, ask.version)
        kinds = {item.kind for item in ask.items if isinstance(item, Item)}
        if len(kinds) > 1:
            raise InvalidRequest("instances: images and texts are mixed; send them apart")
        return self.registry.default(kinds.pop())

    def _admit(self, model: LiveModel, count: int, deadline_s: float) -> list[Ticket]:
        try:
            return model.batcher.admit(count, deadline_s, self._decoder.wait_s(count))
        except ServingError as error:
            error.about = (model.manifest.name, model.manifest.version)
            raise

    async def _settle(self, model: LiveModel, tickets: list[Ticket], deadline_s: float) -> None:
        if not tickets:
            return
        futures = [ticket.answer for ticket in tickets]
        try:
            _, pending = await asyncio.wait(futures, timeout=max(0.0, deadline_s - self._clock()))
        except asyncio.CancelledError:
            # Nobody waits for these answers any more.
            model.batcher.cancel([ticket for ticket in tickets if not ticket.answer.done()])
            for ticket in tickets:
                _consume(ticket)
            raise
        if pending:
            model.batcher.cancel([ticket for ticket in tickets if ticket.answer in pending])

    def _count(
        self, model: LiveModel, outcomes: Sequence[Prediction | WrittenText | ServingError], timing: TimingMs
    ) -> None:
        name, version = model.manifest.name, model.manifest.version
        for outcome in outcomes:
            code = outcome.code if isinstance(outcome, ServingError) else "ok"
            self._metrics.items.labels(name, version, code).inc()
        self._metrics.observe_stages(name, timing)


def _checked(item: Item | ServingError, model: LiveModel) -> Item | ServingError:
    if isinstance(item, Item) and item.kind != model.kind:
        return InvalidRequest(f"{model.manifest.name} takes {model.kind}s, not {item.kind}s")
    return item


def _outcome(ticket: Ticket, model: LiveModel, top_k: int) -> Prediction | WrittenText | ServingError:
    if ticket.answer.cancelled():
        return DeadlineExceeded("the time ran out before the answer was there; allow more or try again later")
    error = ticket.answer.exception()
    if isinstance(error, ServingError):
        return error
    if error is not None:
        raise error
    try:
        return to_answer(ticket.answer.result(), model.loaded, top_k)
    except ServingError as unusable:
        return unusable


def _consume(ticket: Ticket) -> None:
    # An exception that nobody retrieves would be reported as lost.
    if ticket.answer.done() and not ticket.answer.cancelled():
        ticket.answer.exception()


def _timing(tickets: Sequence[Ticket], total_s: float) -> TimingMs:
    def slowest_ms(start: str, end: str) -> float:
        spans_s = [getattr(ticket, end) - getattr(ticket, start) for ticket in tickets if getattr(ticket, end)]
        return round(1000 * max(spans_s, default=0.0), 3)

    return TimingMs(
        decode=slowest_ms("admitted_s", "queued_s"),
        queue=slowest_ms("queued_s", "started_s"),
        inference=slowest_ms("started_s", "finished_s"),
        total=round(1000 * total_s, 3),
    )
