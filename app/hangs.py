"""Batches that do not come back: their requests are answered, their thread replaced, their model loaded anew.

No thread can be ended from outside. One that hangs is left to itself, and the service does without it: what would
otherwise be taken up by it, one request after another, are the threads of every model.
"""

import asyncio
import logging
from collections.abc import Callable

from app.batching import Batcher
from app.metrics import Metrics
from app.registry import LiveModel, Registry
from app.reloading import Reloader
from app.workers import Workers

logger = logging.getLogger(__name__)

# Looks for each time that a batch may take, so that one is found soon after it is over.
LOOKS = 10
# Each thread that hangs may hold a processor and memory: with so many, another process is the better service.
MOST_LOST = 4


class HangWatch:
    """Looks for batches that take too long. Used on the event loop only.

    Args:
        registry: What is live.
        reloader: Loads a model anew.
        workers: The threads that all models share.
        metrics: Told of each.
        longest_s: A batch may take.
        leave: Has the process leave.
    """

    def __init__(
        self,
        registry: Registry,
        reloader: Reloader,
        workers: Workers,
        metrics: Metrics,
        longest_s: float,
        leave: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._reloader = reloader
        self._workers = workers
        self._metrics = metrics
        self._longest_s = longest_s
        self._leave = leave
        self._given_up: list[Batcher] = []

    async def watch(self) -> None:
        """Look now and then, for ever."""
        while True:
            await asyncio.sleep(self._longest_s / LOOKS)
            try:
                self.look()
            except Exception:
                # The watch must outlive whatever it meets: a system that has no more threads to give, for one.
                logger.exception("looking for what hangs failed")

    def look(self) -> None:
        """Give up what hangs."""
        for model in self._registry.everything_live():
            if model.batcher.give_up_hung(self._longest_s):
                self._given_up.append(model.batcher)
                self._replace(model)
        for batcher in self._reloader.draining():
            if batcher.give_up_hung(self._longest_s):
                self._given_up.append(batcher)
        # Whatever else a thread does, it is missed: decoding an image as well.
        replaced = self._workers.replace_hung(self._longest_s)
        if replaced:
            logger.error("%d threads are replaced, for they do not come back", replaced)
        self._given_up = [batcher for batcher in self._given_up if batcher.running]
        # A GPU's batches run on threads of their own.
        lost = max(self._workers.lost, sum(batcher.running for batcher in self._given_up))
        if lost >= MOST_LOST:
            logger.critical("%d threads hang: the process leaves, to be started anew", lost)
            self._leave()

    def _replace(self, model: LiveModel) -> None:
        name, version = model.manifest.name, model.manifest.version
        logger.error("%s %s hangs: a batch takes over %g s; it is loaded anew", name, version, self._longest_s)
        self._metrics.hangs.count(name, version)
        self._reloader.withdraw(model)
