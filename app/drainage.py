"""Versions that were taken out: they answer what they admitted, and go. Used on the event loop only."""

import asyncio
import logging

from app.batching import Batcher
from app.registry import LiveModel

logger = logging.getLogger(__name__)


class Drainage:
    """Those that still have items to answer."""

    def __init__(self) -> None:
        self._draining: dict[Batcher, asyncio.Task[None]] = {}

    @property
    def batchers(self) -> list[Batcher]:
        """Theirs."""
        return list(self._draining)

    def add(self, model: LiveModel) -> None:
        """Have a version answer what it admitted, and no more."""
        self._draining[model.batcher] = asyncio.create_task(self._drain(model))

    async def _drain(self, model: LiveModel) -> None:
        model.batcher.drain()
        await model.batcher.drained()
        model.batcher.close()
        del self._draining[model.batcher]
        logger.info("%s %s is drained", model.manifest.name, model.manifest.version)
