"""One request through the stages: resolve, admit, decode, batch, respond.

Admission comes before decoding, so that a refusal costs no decoding, and what waits in the pool is bounded by
the same count as the queue.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from app.deadline import Deadline
from app.errors import ClientDisconnected, DeadlineExceeded, InvalidRequest, ServingError
from app.items import Item
from app.metrics import Metrics
from app.registry import LiveModel, Registry
from app.responding import Prediction, Raw
from app.shadowing import Shadowing
from app.tickets import Order, Ticket
from app.workers import Clock


class Ask(NamedTuple):
    """What a request wants to know, of at least one good item; `received_s` is on the monotonic clock.

    `top_k` is the number of labels or texts that are wanted; None wants the model's outputs as they are. `key`
    decides whether a candidate answers, where no version is named.
    """

    items: Sequence[Item | ServingError]
    model: str | None
    version: str | None
    top_k: int | None
    received_s: float
    deadline: Deadline
    key: str | None = None


class Answer(NamedTuple):
    """A prediction or an error for each item, in order."""

    model: LiveModel
    outcomes: list[Prediction | Raw | ServingError]
    timing_ms: dict[str, float]


class Predictor:
    """Answers requests with what is live."""

    def __init__(
        self, registry: Registry, metrics: Metrics, shadowing: Shadowing, clock: Clock = time.monotonic
    ) -> None:
        self.registry = registry
        self._shadowing = shadowing
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
        tickets: Sequence[Ticket] = ()
        if good:
            # No await between resolving and admitting: a version cannot be swapped out in between.
            order = self._admit(model, len(good), ask)
            model.batcher.submit(order, good)
            await self._answered(model, order, ask.deadline)
            tickets = order.tickets
        answers = iter(tickets)
        outcomes = [_outcome(next(answers)) if isinstance(item, Item) else item for item in items]
        timing_ms = _timing_ms(tickets, self._clock() - ask.received_s)
        self._count(model, outcomes, timing_ms)
        if ask.key is not None and ask.version is None:
            self._shadowing.follow(ask.key, model, items, outcomes, _taken_s(tickets))
        return Answer(model, outcomes, timing_ms)

    def _resolve(self, ask: Ask) -> LiveModel:
        if ask.model is not None:
            return self.registry.resolve(ask.model, ask.version, ask.key)
        kinds = {item.kind for item in ask.items if isinstance(item, Item)}
        if len(kinds) > 1:
            raise InvalidRequest("instances: images and texts are mixed; send them apart")
        return self.registry.default(kinds.pop(), ask.key)

    def _admit(self, model: LiveModel, count: int, ask: Ask) -> Order:
        try:
            return model.batcher.admit(count, ask.deadline.at_s, ask.top_k)
        except ServingError as error:
            error.about = (model.manifest.name, model.manifest.version)
            raise

    async def _answered(self, model: LiveModel, order: Order, deadline: Deadline) -> None:
        deadline.then(partial(_give_up, model, order))
        try:
            await order.answered
        except asyncio.CancelledError:
            # Nobody waits for these answers any more.
            model.batcher.cancel(order, ClientDisconnected())
            raise

    def _count(
        self, model: LiveModel, outcomes: Sequence[Prediction | Raw | ServingError], timing_ms: dict[str, float]
    ) -> None:
        name, version = model.manifest.name, model.manifest.version
        for outcome in outcomes:
            code = outcome.code if isinstance(outcome, ServingError) else "ok"
            self._metrics.items.count(name, version, code)
        self._metrics.observe_stages(name, timing_ms)


def _give_up(model: LiveModel, order: Order) -> None:
    late = DeadlineExceeded("the time ran out before the answer was there; allow more or try again later")
    model.batcher.cancel(order, late)


def _checked(item: Item | ServingError, model: LiveModel) -> Item | ServingError:
    if isinstance(item, Item) and item.kind != model.kind:
        return InvalidRequest(f"{model.manifest.name} takes {model.kind}s, not {item.kind}s")
    return item


def _outcome(ticket: Ticket) -> Prediction | Raw | ServingError:
    answer = ticket.answer
    if isinstance(answer, Exception) and not isinstance(answer, ServingError):
        raise answer
    assert answer is not None, "an order is answered once all its tickets are"  # noqa: S101
    outcome: Prediction | Raw | ServingError = answer
    return outcome


def _taken_s(tickets: Sequence[Ticket]) -> float:
    return max((ticket.finished_s - ticket.admitted_s for ticket in tickets if ticket.finished_s), default=0.0)


def _timing_ms(tickets: Sequence[Ticket], total_s: float) -> dict[str, float]:
    """A schemas.TimingMs: each stage that of the request's slowest item."""
    decode_s = queue_s = inference_s = 0.0
    for ticket in tickets:
        if ticket.queued_s:
            decode_s = max(decode_s, ticket.queued_s - ticket.admitted_s)
        if ticket.started_s:
            queue_s = max(queue_s, ticket.started_s - ticket.queued_s)
        if ticket.finished_s:
            inference_s = max(inference_s, ticket.finished_s - ticket.started_s)
    return {
        "decode": round(1000 * decode_s, 3),
        "queue": round(1000 * queue_s, 3),
        "inference": round(1000 * inference_s, 3),
        "total": round(1000 * total_s, 3),
    }
