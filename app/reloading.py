"""Look for published versions; verify, load, warm up, check, swap, drain the old.

Any failure keeps the old version serving, and stands in /health/ready, /models and the metrics. Of several worker
processes each gets as far as the swap, and then waits until all have.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from app.attempts import FIRST_RETRY_S, Attempts
from app.batching import Batcher
from app.companions import Companions
from app.drainage import Drainage
from app.inference import LoadedModel, ModelHung
from app.loader import Loader, LoadTimedOut
from app.metrics import Metrics
from app.registry import LiveModel, Refusal, Registry
from app.version_policy import VersionPolicy
from models.current import Current
from models.errors import CurrentInvalid, ModelsError, RepositoryError
from models.repository import InputKind

logger = logging.getLogger(__name__)


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

    def changed(self, model: str) -> None:
        """Tell that what is said of a model was changed from here."""
        ...

    def looked(self) -> None:
        """Tell that what is live or refused may have changed."""
        ...


@dataclass(frozen=True)
class Held:
    """A version that is ready to be served, and waits for the others."""

    current: Current
    loaded: LoadedModel


class Reloader:
    """Keeps the registry in step with the repository.

    Args:
        loader: Reads the repository, and loads versions.
        registry: What is live.
        make_batcher: Loaded model -> its batcher, on the event loop.
        metrics: Told of loads and refusals.
        consent: Of the other worker processes; None if there are none.
        policy: Which versions are live besides the current one.
    """

    def __init__(
        self,
        loader: Loader,
        registry: Registry,
        make_batcher: Callable[[LoadedModel], Batcher],
        metrics: Metrics,
        consent: Consent | None = None,
        policy: VersionPolicy | None = None,
    ) -> None:
        self._loader = loader
        self._registry = registry
        self._make_batcher = make_batcher
        self._metrics = metrics
        self._consent = consent
        self._held: dict[str, Held] = {}
        self._behind = asyncio.Event()
        self._looking = asyncio.Lock()
        self._heeding: set[asyncio.Task[None]] = set()
        # Served before, and since unloaded or withdrawn.
        self._taken_out: set[str] = set()
        self._news = asyncio.Event()
        self._trouble = ""
        self._attempts = Attempts()
        self._drainage = Drainage()
        self._companions = Companions(
            registry, loader, self._enliven, self._drainage, metrics, policy or VersionPolicy()
        )

    async def watch(self, interval_s: float) -> None:
        """Look once, and then every `interval_s` seconds, or when there is a reason; 0: only then."""
        heeding = asyncio.create_task(self._heed_while_loading(interval_s))
        try:
            await self._look_on(interval_s)
        finally:
            heeding.cancel()

    async def _look_on(self, interval_s: float) -> None:
        while True:
            self._behind.clear()
            try:
                await self.look()
            except Exception:
                # The watch must outlive whatever it meets: without it no later version would ever go live.
                logger.exception("looking for new versions failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._behind.wait(), interval_s or None)

    async def _heed_while_loading(self, interval_s: float) -> None:
        while interval_s:
            await asyncio.sleep(interval_s)
            if not self._looking.locked():
                continue
            for name in sorted(self._registry.names - self._registry.unloaded):
                await self._heed_or_tell(name)

    async def _heed_or_tell(self, name: str) -> None:
        try:
            await self.heed(name)
        except Exception:
            logger.exception("what is said of %s could not be heeded", name)

    async def heed(self, name: str) -> None:
        """Take over what needs no load, though something is being loaded: what is to end ends now.

        A model is unloaded, a candidate is stopped or gets another share, and a version that is live already
        becomes the current one.
        """
        repository = self._loader.repository
        if await self._loader.run(lambda: repository.unloaded([name])):
            self._registry.unloaded = self._registry.unloaded | {name}
            self._take_out(name)
            return
        await self._companions.heed(name)
        if self._consent is None:
            await self._heed_current(name)

    def tell_of_change(self, name: str) -> None:
        """Have the other worker processes look too."""
        if self._consent is not None:
            self._consent.changed(name)

    def hear_of_change(self, name: str) -> None:
        """Look soon, since another worker process changed what is said of a model; on the event loop."""
        self._behind.set()
        heeding = asyncio.create_task(self._heed_or_tell(name))
        self._heeding.add(heeding)
        heeding.add_done_callback(self._heeding.discard)

    async def _heed_current(self, name: str) -> None:
        try:
            current = await self._loader.run(lambda: self._loader.repository.current(name))
        except ModelsError:  # The next look tells.
            return
        loaded = self._companion(name, current)
        if loaded is not None and name not in self._registry.unloaded:
            self._go_live(name, loaded)

    def retry(self, name: str) -> None:
        """Try at the next look what could not be loaded, however lately that was tried."""
        self._forget_failure(name)
        self._companions.retry(name)

    @property
    def news(self) -> asyncio.Event:
        """Set once what has settled may be otherwise; then there is another."""
        return self._news

    async def settled(self, name: str) -> None:
        """Wait until any version of a model is live or refused, or the model unloaded."""
        while not self.has_settled(name):
            await self._news.wait()

    def has_settled(self, name: str, version: str | None = None) -> bool:
        """Whether a version of a model, or any if none is named, is live or refused, or the model unloaded."""
        if name in self._registry.unloaded:
            return True
        live, refusal = self._registry.live.get(name), self._registry.refusals.get(name)
        reached = {each for each in (live and live.manifest.version, refusal and refusal.version) if each}
        return version in reached if version else live is not None or refusal is not None

    async def look(self) -> None:
        """Bring every model whose current version is not the live one up to date, and then the other versions.

        One look at a time: whatever was changed before this call is seen.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        await self._list()
        for name in self._registry.unloaded:
            self._take_out(name)
        serving = self._registry.names - self._registry.unloaded
        self._held = {name: held for name, held in self._held.items() if name in serving}
        current: dict[str, Current | None] = {}
        for name in sorted(self._registry.names - self._registry.unloaded):
            if name in self._registry.unloaded:  # While those before it were loaded.
                continue
            await self._companions.find_wanted(name)
            current[name] = await self._bring_up_to_date(name)
        self._registry.looked = True
        if self._consent is not None:
            self._consent.looked()
        for name, its in current.items():
            await self._companions.look(name, [its.version] if its is not None else [])

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
        if self._attempts.is_due(name, current):
            self._note_refusal(name, current, refusal)
            logger.error("%s %s is let go: another worker process refused it", name, current.version)

    def withdraw(self, model: LiveModel) -> None:
        """Take a version out that hangs, and load it anew; on the event loop."""
        name, version = model.manifest.name, model.manifest.version
        self._metrics.live.remove(name, version)
        self._drainage.add(model)
        self._held = {of: held for of, held in self._held.items() if held.loaded is not model.loaded}
        # Also where nobody looks for versions any more; a little after it is due.
        asyncio.get_running_loop().call_later(1.1 * FIRST_RETRY_S, self._behind.set)
        if self._registry.live.get(name) is not model:
            self._companions.withdraw(model)
            return
        del self._registry.live[name]
        self._taken_out.add(name)
        self._registry.hung.add(name)
        current = Current(version, model.loaded.bundle.manifest_sha256)
        self._note_refusal(name, current, Refusal.of(version, ModelHung.of(name, version)))

    def draining(self) -> list[Batcher]:
        """The batchers of versions that were swapped out and still have items to answer."""
        return self._drainage.batchers

    def close(self) -> None:
        """Take up no further load; one in progress ends on its own."""
        self._loader.close()

    async def _list(self) -> None:
        repository, trouble = self._loader.repository, ""
        try:
            self._registry.note_names(await self._names())
            names, before = self._registry.names, self._registry.unloaded
            self._companions.note_names(names)
            unloaded = await self._loader.run(lambda: repository.unloaded(names, before))
            # What was heeded meanwhile may be later than what was read.
            self._registry.unloaded = unloaded | (self._registry.unloaded - before)
            self._registry.repository_defaults = await self._defaults()
        except CurrentInvalid as error:
            trouble = f"the defaults of before are kept: {error}"
        except ModelsError as error:
            trouble = self._registry.trouble = str(error)
        if trouble and trouble != self._trouble:
            logger.error("%s", trouble)
        self._trouble = trouble
        if self._consent is not None and self._registry.required is not None:
            self._consent.require(self._registry.required)

    async def _names(self) -> list[str]:
        """The names in the repository.

        Raises:
            RepositoryError: They cannot be read, or there are none any more: a directory that was moved away, or a
                volume that is not mounted, takes nothing away that serves or that is to.
        """
        names = await self._loader.run(self._loader.repository.names)
        if not names and (self._registry.live or self._registry.required):
            raise RepositoryError(f"{self._loader.repository.root} holds no model any more")
        return names

    async def _defaults(self) -> Mapping[InputKind, str]:
        """The default models.

        Raises:
            CurrentInvalid: Their file cannot be read, or is gone: whoever asks for the default one relies on it.
        """
        repository = self._loader.repository
        # Read once: asked again whether it is there, it may be back.
        defaults = await self._loader.run(repository.stated_defaults)
        if defaults is None and self._registry.repository_defaults:
            raise CurrentInvalid(
                f"{repository.root}/defaults.json is gone; {{}} in it would say that there is none"
            )
        return defaults or {}

    async def _bring_up_to_date(self, name: str) -> Current | None:
        """Load what is current, if that is not live; return what is, if that is known."""
        current: Current | None = None
        try:
            current = await self._wanted(name)
            if self._is_live(name, current):
                await self._check_there(name, current)
                if self._is_live(name, current):  # It was not withdrawn meanwhile.
                    self._keep(name, current)
                return current
            if self._is_held(name, current) or not await self._is_due(name, current):
                return current
            if self._is_live(name, current):  # It was heeded meanwhile.
                return current
            loaded = self._companion(name, current) or await self._loader.load(name, current)
        except Exception as error:
            if self._attempts.is_due(name, current):
                self._refuse(name, current, error)
            return current
        await self._take_up(name, Held(current, loaded))
        return current

    async def _take_up(self, name: str, held: Held) -> None:
        """Have a version that is loaded go live, if it is to by now."""
        took_a_load = self._companion(name, held.current) is not held.loaded
        if took_a_load and await self._is_outdated(name, held.current):
            logger.info("%s %s is loaded and wanted no more", name, held.current.version)
        elif self._consent is None:
            self._go_live(name, held.loaded)
        elif self._attempts.is_due(name, held.current):  # Nobody refused it meanwhile.
            await self._go_live_with_others(name, held, self._consent)

    async def _is_outdated(self, name: str, loaded: Current) -> bool:
        """Whether a version is not to be served now that it is loaded.

        The model was unloaded, or rolled back to what is live. For a newer version alone it is not: that has yet
        to be loaded, and while versions are published faster than that none would ever be served.
        """
        try:
            wanted = await self._wanted(name)
        except ModelsError:  # The next look tells.
            return name in self._registry.unloaded
        return name in self._registry.unloaded or (wanted != loaded and self._is_live(name, wanted))

    async def _is_due(self, name: str, current: Current) -> bool:
        """Whether to try a version: at once what is new, or signed by now, and after a while what failed."""
        refusal = self._registry.refusals.get(name)
        if await self._loader.has_been_signed(name, current.version, refusal):
            self._attempts.forget(name)
        return self._attempts.is_due(name, current)

    async def _check_there(self, name: str, live: Current) -> None:
        # It serves from memory; but whoever starts next could not load it, and nobody would know before.
        await self._loader.run(lambda: self._loader.repository.check_version_there(name, live.version))

    def _take_out(self, name: str) -> None:
        self._companions.forget(name)
        self._attempts.forget(name)
        self._held.pop(name, None)
        self._taken_out.add(name)
        for model in self._registry.take_all(name):
            self._metrics.live.remove(name, model.manifest.version)
            self._drainage.add(model)
            logger.info("%s %s is taken out: the model is unloaded", name, model.manifest.version)
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _companion(self, name: str, current: Current) -> LoadedModel | None:
        """What is live already besides the current version, if it is what is to be that."""
        for model in self._registry.others_of(name):
            if _is(model, current):
                return model.loaded
        return None

    async def _wanted(self, name: str) -> Current:
        """What the others serve, for one who is behind; else the current version."""
        served = self._consent.served(name) if self._consent is not None else None
        if served is not None and self._is_behind(name, served):
            return served
        return await self._loader.run(lambda: self._loader.repository.current(name))

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
            if self._held.pop(name, None) is not None:
                self._tell_news()
            self._consent.stand(name, current)

    def _is_held(self, name: str, current: Current) -> bool:
        held = self._held.get(name)
        return held is not None and held.current == current

    def _is_behind(self, name: str, served: Current) -> bool:
        if name not in self._registry.live:
            # What was taken out comes back as what is current now.
            return name not in self._taken_out and self._attempts.is_due(name, served)
        # What cannot be loaded here must not keep a later version from being tried.
        return not self._is_live(name, served) and self._attempts.is_due(name, served)

    def _is_live(self, name: str, current: Current) -> bool:
        live = self._registry.live.get(name)
        return live is not None and _is(live, current)

    def _forget_failure(self, name: str) -> None:
        self._attempts.forget(name)
        self._registry.refusals.pop(name, None)

    def _refuse(self, name: str, current: Current | None, error: Exception) -> None:
        version = current.version if current else None
        refusal = Refusal.of(version, error)
        self._metrics.loads.labels(name, "refused").inc()
        self._registry.hung.discard(name)
        self._note_refusal(name, current, refusal, for_good=isinstance(error, LoadTimedOut))
        if self._consent is not None and current is not None:
            self._consent.refuse(name, current, refusal)
        trace = None if isinstance(error, ModelsError) else error
        logger.error("%s %s is refused: %s: %s", name, version or "", type(error).__name__, error, exc_info=trace)

    def _note_refusal(
        self, name: str, current: Current | None, refusal: Refusal, *, for_good: bool = False
    ) -> None:
        self._attempts.note(name, current, for_good=for_good)
        self._registry.refusals[name] = refusal
        self._tell_news()

    def _go_live(self, name: str, loaded: LoadedModel) -> None:
        version = loaded.bundle.manifest.version
        companion = self._registry.take_other(name, version)
        if companion is not None and companion.loaded is loaded:
            live = companion
        else:
            live = self._enliven(loaded)
            if companion is not None:  # The same version, and other bytes.
                self._drainage.add(companion)
        before = self._registry.swap(name, live)
        self._taken_out.discard(name)
        self._tell_news()
        self._companions.end_trial(name, version)
        self._forget_failure(name)
        self._metrics.loads.labels(name, "loaded").inc()
        logger.info("%s %s is live on %s", name, version, loaded.device)
        if before is not None and before.manifest.version != version:
            self._companions.keep_or_drain(before)
        elif before is not None:
            self._drainage.add(before)

    def _enliven(self, loaded: LoadedModel) -> LiveModel:
        manifest = loaded.bundle.manifest
        self._metrics.live.labels(manifest.name, manifest.version).set(1)
        return LiveModel(loaded, self._make_batcher(loaded), datetime.now(UTC))


def _is(model: LiveModel, current: Current) -> bool:
    return current == Current(model.manifest.version, model.loaded.bundle.manifest_sha256)
