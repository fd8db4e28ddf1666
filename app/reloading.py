"""Look for published versions; verify, load, warm up, check, swap, drain the old.

Any failure keeps the old version serving, and stands in /health/ready, /models and the metrics. Of several worker
processes each gets as far as the swap, and then waits until all have.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from app.batching import Batcher
from app.inference import LoadedModel
from app.metrics import Metrics
from app.registry import LiveModel, Refusal, Registry
from models.bundle import Bundle
from models.errors import CurrentInvalid, ModelsError
from models.repository import Current, Repository

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0


class Consent(Protocol):
    """Other worker processes that serve the same models, and swap when this one does."""

    def served(self, model: str) -> Current | None:
        """Which version of a model they serve, if it is known."""
        ...

    def require(self, models: Collection[str]) -> None:
        """Tell without which models this process is not ready."""
        ...

    def stand(self, model: str, current: Current) -> None:
        """Tell that this version is current and could be served; `go` or `let_go` is called in time."""
        ...

    def refuse(self, model: str, current: Current, refusal: Refusal) -> None:
        """Tell that this version could not be loaded."""
        ...

    def looked(self) -> None:
        """Tell that what is live or refused may have changed."""
        ...


@dataclass(frozen=True)
class Held:
    """A version that is ready to be served, and waits for the others."""

    current: Current
    loaded: LoadedModel


@dataclass(frozen=True)
class Attempt:
    """A failed load: of what, and when to try again, on the monotonic clock."""

    current: Current | None
    wait_s: float
    again_s: float


class Reloader:
    """Keeps the registry in step with the repository.

    Args:
        repository: Where versions are published.
        registry: What is live.
        load: Bundle -> loaded model; raises BundleError.
        make_batcher: Loaded model -> its batcher, on the event loop.
        metrics: Told of loads and refusals.
        consent: Of the other worker processes; None if there are none.
    """

    def __init__(
        self,
        repository: Repository,
        registry: Registry,
        load: Callable[[Bundle], LoadedModel],
        make_batcher: Callable[[LoadedModel], Batcher],
        metrics: Metrics,
        consent: Consent | None = None,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._load = load
        self._make_batcher = make_batcher
        self._metrics = metrics
        self._consent = consent
        self._held: dict[str, Held] = {}
        self._behind = asyncio.Event()
        # One load at a time: loading competes with serving for the processor and the device's memory.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._failed: dict[str, Attempt] = {}
        self._draining: dict[Batcher, asyncio.Task[None]] = {}

    async def watch(self, interval_s: float) -> None:
        """Look once, and then every `interval_s` seconds, or when the others went on; 0 looks only once."""
        while True:
            self._behind.clear()
            try:
                await self.look()
            except Exception:
                # The watch must outlive whatever it meets: without it no later version would ever go live.
                logger.exception("looking for new versions failed")
            if not interval_s:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._behind.wait(), interval_s)

    async def look(self) -> None:
        """Bring every model whose current version is not the live one up to date."""
        await self._list()
        self._held = {name: held for name, held in self._held.items() if name in self._registry.names}
        for name in sorted(self._registry.names):
            await self._bring_up_to_date(name)
        self._registry.looked = True
        if self._consent is not None:
            self._consent.looked()

    def go(self, name: str, current: Current) -> None:
        """Swap to a version now that the others do, or load it if it is not waited with; on the event loop."""
        if self._is_held(name, current):
            self._go_live(name, self._held.pop(name).loaded)
        elif not self._is_live(name, current):
            self._behind.set()

    def let_go(self, name: str, current: Current, refusal: Refusal) -> None:
        """Refuse a version that another worker process could not load; on the event loop."""
        if self._is_held(name, current):
            del self._held[name]
        if self._is_due(name, current):
            self._note_refusal(name, current, refusal)
            logger.error("%s %s is let go: another worker process refused it", name, current.version)

    def draining(self) -> list[Batcher]:
        """The batchers of versions that were swapped out and still have items to answer."""
        return list(self._draining)

    def close(self) -> None:
        """Take up no further load; one in progress ends on its own."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _list(self) -> None:
        try:
            self._registry.list(await self._in_thread(self._repository.names))
            self._registry.repository_defaults = await self._in_thread(self._repository.defaults)
        except CurrentInvalid as error:
            logger.error("the defaults of before are kept: %s", error)
        except ModelsError as error:
            logger.error("%s", error)
            self._registry.trouble = str(error)
        if self._consent is not None and self._registry.required is not None:
            self._consent.require(self._registry.required)

    async def _bring_up_to_date(self, name: str) -> None:
        current: Current | None = None
        try:
            current = await self._wanted(name)
            if self._is_live(name, current):
                self._keep(name, current)
                return
            if self._is_held(name, current) or not self._is_due(name, current):
                return
            start_s = time.monotonic()
            loaded = await self._in_thread(lambda: self._load(self._repository.open(name, current)))
        except Exception as error:
            if self._is_due(name, current):
                self._refuse(name, current, error)
            return
        self._metrics.load_seconds.labels(name).observe(time.monotonic() - start_s)
        if self._consent is None:
            self._go_live(name, loaded)
        elif self._is_due(name, current):  # Nobody refused it meanwhile.
            await self._go_live_with_others(name, Held(current, loaded), self._consent)

    async def _wanted(self, name: str) -> Current:
        """What the others serve, for one who is behind; else the current version."""
        served = self._consent.served(name) if self._consent is not None else None
        if served is not None and self._is_behind(name, served):
            return served
        return await self._in_thread(lambda: self._repository.current(name))

    async def _go_live_with_others(self, name: str, held: Held, consent: Consent) -> None:
        consent.stand(name, held.current)
        if consent.served(name) == held.current:
            self._held.pop(name, None)
            self._go_live(name, held.loaded)
            return
        self._held[name] = held
        if name not in self._registry.live and consent.served(name) is not None:
            await self._bring_up_to_date(name)

    def _keep(self, name: str, current: Current) -> None:
        self._forget_failure(name)
        if self._consent is not None:
            self._held.pop(name, None)
            self._consent.stand(name, current)

    def _is_held(self, name: str, current: Current) -> bool:
        held = self._held.get(name)
        return held is not None and held.current == current

    def _is_behind(self, name: str, served: Current) -> bool:
        if name not in self._registry.live:
            return True
        # What cannot be loaded here must not keep a later version from being tried.
        return not self._is_live(name, served) and self._is_due(name, served)

    def _is_live(self, name: str, current: Current) -> bool:
        live = self._registry.live.get(name)
        if live is None:
            return False
        return current == Current(live.manifest.version, live.loaded.bundle.manifest_sha256)

    def _is_due(self, name: str, current: Current | None) -> bool:
        failed = self._failed.get(name)
        return failed is None or failed.current != current or time.monotonic() >= failed.again_s

    def _forget_failure(self, name: str) -> None:
        self._failed.pop(name, None)
        self._registry.refusals.pop(name, None)

    def _refuse(self, name: str, current: Current | None, error: Exception) -> None:
        expected = isinstance(error, ModelsError)
        detail = str(error) if expected else "the service's log says why"
        version = current.version if current else None
        refusal = Refusal(version, type(error).__name__, detail, datetime.now(UTC))
        self._metrics.loads.labels(name, "refused").inc()
        self._note_refusal(name, current, refusal)
        if self._consent is not None and current is not None:
            self._consent.refuse(name, current, refusal)
        traceback = None if expected else error
        logger.error(
            "%s %s is refused: %s: %s", name, version or "", type(error).__name__, error, exc_info=traceback
        )

    def _note_refusal(self, name: str, current: Current | None, refusal: Refusal) -> None:
        before = self._failed.get(name)
        again = before is not None and before.current == current
        wait_s = min(LONGEST_RETRY_S, 2 * before.wait_s) if before and again else FIRST_RETRY_S
        self._failed[name] = Attempt(current, wait_s, time.monotonic() + wait_s)
        self._registry.refusals[name] = refusal

    def _go_live(self, name: str, loaded: LoadedModel) -> None:
        live = LiveModel(loaded, self._make_batcher(loaded), datetime.now(UTC))
        before = self._registry.swap(name, live)
        self._forget_failure(name)
        self._metrics.loads.labels(name, "loaded").inc()
        self._metrics.live.labels(name, live.manifest.version).set(1)
        logger.info("%s %s is live on %s", name, live.manifest.version, loaded.device)
        if before is not None:
            if before.manifest.version != live.manifest.version:
                self._metrics.live.remove(name, before.manifest.version)
            self._draining[before.batcher] = asyncio.create_task(self._drain(before))

    async def _drain(self, model: LiveModel) -> None:
        model.batcher.drain()
        await model.batcher.drained()
        model.batcher.close()
        del self._draining[model.batcher]
        logger.info("%s %s is drained", model.manifest.name, model.manifest.version)

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._loader, call)
