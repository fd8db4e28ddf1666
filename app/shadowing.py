"""A copy of some requests goes to the candidate; what it says is compared with the answer, and never returned.

It is done behind the answers, one request at a time and only while there is little to do: a copy is left out
rather than be in the way, and a candidate that hangs holds up one thread, not all.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.batching import Batcher
from app.errors import ServingError
from app.items import Item
from app.metrics import Metrics
from app.registry import LiveModel, Registry
from app.responding import Prediction, Raw
from app.tickets import Order, Ticket

logger = logging.getLogger(__name__)

# Of copies that wait for their turn.
MOST_WAITING = 64
MOST_BYTES = 16_000_000
# What waits longer than this has others that wait with it.
MOST_WAIT_S = 0.05
# A copy waits for a moment in which nobody else waits; looked for so often, and for so long.
QUIET_WITHIN_S = 1.0
LOOK_INTERVAL_S = 0.01
# A candidate that takes longer fails.
PATIENCE_S = 30.0


class Answered(NamedTuple):
    """An item that was answered: with what, and how sure the model was of it."""

    item: Item
    best: str
    score: float


class Copy(NamedTuple):
    """A request that was answered, and is the candidate's turn now; `seconds` is what its slowest item took."""

    candidate: LiveModel
    answered: Sequence[Answered]
    seconds: float
    size_bytes: int


class Shadowing:
    """Copies requests, and compares. Used on the event loop only.

    Args:
        registry: Says which are copied, and to whom.
        metrics: Told what comes out.
    """

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._waiting: deque[Copy] = deque()
        self._held_bytes = 0
        self._working: asyncio.Task[None] | None = None
        # Of a candidate that did not answer in time, and may hold a thread for it.
        self._overdue: Batcher | None = None

    def follow(
        self,
        key: str,
        model: LiveModel,
        items: Sequence[Item | ServingError],
        outcomes: Sequence[Prediction | Raw | ServingError],
        seconds: float,
    ) -> None:
        """Copy a request that was answered, if its key is one of those.

        Args:
            key: What decides.
            model: Whose answer it was.
            items: What was asked about.
            outcomes: The answer, item by item.
            seconds: That its slowest item took.
        """
        candidate = self._registry.shadow(model.manifest.name, key)
        if candidate is None or candidate is model:
            return
        try:
            answered = _answered(model, items, outcomes)
            if answered:
                self._queue(Copy(candidate, answered, seconds, sum(_bytes(each.item) for each in answered)))
        except Exception:
            # Whoever was answered has nothing to do with it.
            logger.exception("a request could not be copied to %s", candidate.manifest.version)

    def close(self) -> None:
        """Compare nothing more."""
        self._waiting.clear()
        if self._working is not None:
            self._working.cancel()

    def _queue(self, copy: Copy) -> None:
        if len(self._waiting) >= MOST_WAITING or self._held_bytes + copy.size_bytes > MOST_BYTES:
            self._skip(copy)
            return
        self._waiting.append(copy)
        self._held_bytes += copy.size_bytes
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            copy = self._waiting.popleft()
            try:
                await self._compare(copy)
            except Exception:
                logger.exception("a request could not be compared with %s", copy.candidate.manifest.version)
            finally:
                self._held_bytes -= copy.size_bytes

    async def _compare(self, copy: Copy) -> None:
        batcher = copy.candidate.batcher
        if self._holds_a_thread(batcher) or not await self._is_quiet() or batcher.wait_s > MOST_WAIT_S:
            self._skip(copy)
            return
        try:
            order = batcher.admit(len(copy.answered), time.monotonic() + PATIENCE_S, None)
        except ServingError:
            self._skip(copy)
            return
        batcher.submit(order, [each.item for each in copy.answered])
        try:
            await asyncio.wait_for(order.answered, PATIENCE_S)
        except TimeoutError as error:
            self._overdue = batcher
            batcher.cancel(order, error)
        self._judge(copy, order)

    def _holds_a_thread(self, batcher: Batcher) -> bool:
        """Whether a candidate is still at what it should have answered: one more copy might hold one more."""
        if self._overdue is not None and not self._overdue.running:
            self._overdue = None
        return batcher is self._overdue

    async def _is_quiet(self) -> bool:
        """Wait until nobody who will be answered waits for a thread; return whether that came soon enough."""
        give_up_s = time.monotonic() + QUIET_WITHIN_S
        while any(model.batcher.waiting for model in self._registry.everything_live()):
            if time.monotonic() > give_up_s:
                return False
            await asyncio.sleep(LOOK_INTERVAL_S)
        return True

    def _judge(self, copy: Copy, order: Order) -> None:
        for answered, ticket in zip(copy.answered, order.tickets, strict=True):
            self._judge_item(copy.candidate, answered, ticket)
        name, version = copy.candidate.manifest.name, copy.candidate.manifest.version
        took_s = max(ticket.finished_s - ticket.admitted_s for ticket in order.tickets)
        if took_s > 0:
            self._metrics.shadow_seconds.observe(copy.seconds, name, version, "current")
            self._metrics.shadow_seconds.observe(took_s, name, version, "candidate")

    def _skip(self, copy: Copy) -> None:
        for _ in copy.answered:
            self._count(copy.candidate, "skipped")

    def _judge_item(self, candidate: LiveModel, answered: Answered, ticket: Ticket) -> None:
        outcome = ticket.answer
        if not isinstance(outcome, Raw):
            self._count(candidate, "failed")
            return
        best, _ = _best(outcome, candidate)
        self._count(candidate, "agreed" if best == answered.best else "differed")
        distance = abs(answered.score - _score(outcome, candidate, answered.best))
        self._metrics.shadow_distance.observe(distance, candidate.manifest.name, candidate.manifest.version)

    def _count(self, candidate: LiveModel, result: str) -> None:
        self._metrics.shadow_items.count(candidate.manifest.name, candidate.manifest.version, result)


def _answered(
    model: LiveModel, items: Sequence[Item | ServingError], outcomes: Sequence[Prediction | Raw | ServingError]
) -> list[Answered]:
    return [
        Answered(item, *_best(outcome, model))
        for item, outcome in zip(items, outcomes, strict=True)
        if isinstance(item, Item) and not isinstance(outcome, ServingError)
    ]


def _best(outcome: Prediction | Raw, model: LiveModel) -> tuple[str, float]:
    if not isinstance(outcome, Raw):
        name: str = outcome["label"] if "label" in outcome else outcome["text"]
        return name, outcome["score"]
    names, scores = _named(outcome, model)
    best = int(scores.argmax())
    return names[best], float(scores[best])


def _score(outcome: Raw, model: LiveModel, name: str) -> float:
    """Return the score of a label or text; 0 if the model has or wrote no such."""
    names, scores = _named(outcome, model)
    return float(scores[names.index(name)]) if name in names else 0.0


def _named(outcome: Raw, model: LiveModel) -> tuple[Sequence[str], NDArray[Any]]:
    if model.manifest.write is None:
        return model.manifest.labels, np.asarray(outcome.parts[0])
    _, scores_B, texts = outcome.parts
    return [bytes(text).decode() for text in texts], np.asarray(scores_B)


def _bytes(item: Item) -> int:
    return len(item.content) if item.array is None else item.array.nbytes
