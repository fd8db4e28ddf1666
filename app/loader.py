"""The thread on which the repository is read, and versions are verified, loaded and warmed up."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.inference import LoadedModel
from app.metrics import Metrics
from app.registry import Refusal
from models.bundle import Bundle
from models.repository import Current, Repository

Result = TypeVar("Result")


class Loader:
    """Loads one version at a time: loading competes with serving for the processor and the device's memory.

    Args:
        repository: Where versions are.
        load: Bundle -> loaded model; raises BundleError.
        metrics: Told how long each took.
    """

    def __init__(self, repository: Repository, load: Callable[[Bundle], LoadedModel], metrics: Metrics) -> None:
        self.repository = repository
        self._load = load
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def load(self, name: str, version: str | Current) -> LoadedModel:
        """Verify, load and warm up a version.

        Raises:
            ModelsError: It must not be loaded, or cannot be used.
        """
        start_s = time.monotonic()
        loaded = await self.run(lambda: self._load(self.repository.open(name, version)))
        self._metrics.load_seconds.labels(name).observe(time.monotonic() - start_s)
        return loaded

    async def has_been_signed(self, name: str, version: str, refusal: Refusal | None) -> bool:
        """Whether a version that was refused for its signature has by now the one that it must have."""
        if refusal is None or refusal.version != version or not refusal.for_its_signature:
            return False
        return await self.run(lambda: self.repository.is_signed(name, version))

    async def run(self, call: Callable[[], Result]) -> Result:
        """Have something done there: the repository may be on a slow disk, and the event loop waits for none."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Take up no further load; one in progress ends on its own."""
        self._thread.shutdown(wait=False, cancel_futures=True)
