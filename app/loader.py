"""The threads on which the repository is read, and versions are verified, loaded and warmed up.

One reads, and never waits for what the other loads. A version that does not come back from loading is left to
itself, with its thread: others wait for no such.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.inference import LoadedModel
from app.metrics import Metrics
from app.registry import Refusal
from models.bundle import Bundle
from models.current import Current
from models.errors import BundleError
from models.repository import Repository

Result = TypeVar("Result")


class LoadTimedOut(BundleError):
    """A version that is not ready in time; to try it once more would be to lose one more thread to it."""


class Loader:
    """Loads one version at a time: loading competes with serving for the processor and the device's memory.

    Args:
        repository: Where versions are.
        load: Bundle -> loaded model; raises BundleError.
        metrics: Told how long each took.
        longest_s: A load may take; None: for ever.
    """

    def __init__(
        self,
        repository: Repository,
        load: Callable[[Bundle], LoadedModel],
        metrics: Metrics,
        longest_s: float | None = None,
    ) -> None:
        self.repository = repository
        self._load = load
        self._metrics = metrics
        self._longest_s = longest_s
        self._reader = _thread("look")
        self._thread = _thread("load")

    async def load(self, name: str, version: str | Current) -> LoadedModel:
        """Verify, load and warm up a version.

        Raises:
            LoadTimedOut: It took too long.
            ModelsError: It must not be loaded, or cannot be used.
        """
        start_s = time.monotonic()
        try:
            loaded = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: self._load(self.repository.open(name, version))
                ),
                self._longest_s,
            )
        except TimeoutError:
            self._replace_thread()
            raise LoadTimedOut(
                f"{name} was not loaded and warm within {self._longest_s:g} s (LANTERN_LOAD_TIMEOUT_S); it is "
                "tried again by whoever starts next, or loads it as an administrator"
            ) from None
        self._metrics.load_seconds.labels(name).observe(time.monotonic() - start_s)
        return loaded

    async def has_been_signed(self, name: str, version: str, refusal: Refusal | None) -> bool:
        """Whether a version that was refused for its signature has by now the one that it must have."""
        if refusal is None or refusal.version != version or not refusal.for_its_signature:
            return False
        return await self.run(lambda: self.repository.is_signed(name, version))

    async def run(self, call: Callable[[], Result]) -> Result:
        """Have the repository read: it may be on a slow disk, and the event loop waits for none."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, call)

    def _replace_thread(self) -> None:
        # No thread can be ended from outside; what still comes of this one nobody takes.
        self._thread.shutdown(wait=False)
        self._thread = _thread("load")

    def close(self) -> None:
        """Take up no further load; one in progress ends on its own."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._thread.shutdown(wait=False, cancel_futures=True)


def _thread(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=name)
