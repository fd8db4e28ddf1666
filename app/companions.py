"""Versions that are live besides the current one: loaded while they are wanted, drained when they are not."""

import logging
from collections.abc import Callable, Collection

from app.attempts import Attempts
from app.drainage import Drainage
from app.inference import LoadedModel, ModelHung
from app.loader import Loader, LoadTimedOut
from app.metrics import Metrics
from app.registry import LiveModel, Refusal, Registry
from app.version_policy import VersionPolicy
from models.candidate import Candidate
from models.current import Current
from models.errors import ModelsError

logger = logging.getLogger(__name__)


class Companions:
    """Keeps the registry's other versions in step with the repository. Used on the event loop only.

    One that cannot be loaded keeps nothing else from being served.

    Args:
        registry: What is live.
        loader: Loads versions.
        enliven: Makes a loaded model live.
        drainage: Takes what is not wanted any more.
        metrics: Told of loads and refusals.
        policy: What is wanted.
    """

    def __init__(
        self,
        registry: Registry,
        loader: Loader,
        enliven: Callable[[LoadedModel], LiveModel],
        drainage: Drainage,
        metrics: Metrics,
        policy: VersionPolicy,
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._enliven = enliven
        self._drainage = drainage
        self._metrics = metrics
        self._policy = policy
        self._attempts = Attempts()
        self._unknown: set[str] = set()

    def note_names(self, names: Collection[str]) -> None:
        """Take note of what models there are, and say which are wanted that are not: a slip of the pen maybe."""
        unknown = self._policy.unknown(names)
        if unknown - self._unknown:
            logger.warning("LANTERN_VERSIONS: no such model is published: %s", ", ".join(sorted(unknown)))
        self._unknown = unknown

    async def find_wanted(self, name: str) -> None:
        """Find out which versions of a model are wanted, and which of them is a candidate."""
        repository = self._loader.repository
        versions = await self._loader.run(lambda: repository.versions(name))
        if not versions:  # A directory that cannot be read takes nothing away that serves.
            return
        try:
            candidate = await self._loader.run(lambda: repository.candidate(name))
            if candidate is not None or not await self._is_about_to_be_current(name):
                self._try(name, candidate)
        except ModelsError as error:
            self._note_trouble(name, error)
        tried = self._registry.candidates.get(name)
        self._registry.wanted_others[name] = self._policy.wanted(name, versions) | (
            {tried.version} if tried else set()
        )

    async def heed(self, name: str) -> None:
        """Take over that a candidate is tried no more, or on another share: that needs no load."""
        before = self._registry.candidates.get(name)
        if before is None:
            return
        try:
            candidate = await self._loader.run(lambda: self._loader.repository.candidate(name))
        except ModelsError:  # The next look tells.
            return
        if candidate is None:
            goes_on = await self._is_about_to_be_current(name)
        else:
            goes_on = candidate.version != before.version
        if not goes_on:
            self._try(name, candidate)

    def forget(self, name: str) -> None:
        """Try nothing of a model any more, and whatever comes back of it as if for the first time."""
        self._try(name, None)
        self.retry(name)

    def retry(self, name: str) -> None:
        """Load at the next look what could not be loaded, however lately that was tried."""
        self._attempts.forget_all(f"{name}/")

    def end_trial(self, name: str, version: str) -> None:
        """Note that a version is current now, and so is no candidate any more."""
        candidate = self._registry.candidates.get(name)
        if candidate is not None and candidate.version == version:
            self._try(name, None)

    async def look(self, name: str, others: Collection[str]) -> None:
        """Load what is wanted of a model and not live, and drain what is not wanted.

        Args:
            name: The model's.
            others: Versions that somebody else sees to: the current one.
        """
        wanted = self._registry.wanted_others.get(name, set())
        for model in self._registry.others_of(name):
            # One that is about to be the current one, once the other worker processes are ready too, stays.
            if model.manifest.version not in wanted and model.manifest.version not in others:
                self._registry.take_other(name, model.manifest.version)
                self.keep_or_drain(model)
        live = {model.manifest.version for model in self._registry.versions_of(name)}
        missing = wanted - live - set(others)
        refused = self._registry.other_refusals.get(name, {})
        self._registry.other_refusals[name] = {version: refused[version] for version in missing & set(refused)}
        for version in sorted(missing, reverse=True):
            await self._load(name, version)

    def withdraw(self, model: LiveModel) -> None:
        """Take out a version that hangs; it is loaded anew like one that could not be loaded, but a candidate.

        That has shown what it had to: to try it on would cost a thread each time.
        """
        name, version = model.manifest.name, model.manifest.version
        candidate = self._registry.candidates.get(name)
        is_tried = candidate is not None and candidate.version == version
        self._registry.take_other(name, version)
        self._refuse(name, version, ModelHung.of(name, version, again=not is_tried), for_good=is_tried)

    def keep_or_drain(self, model: LiveModel) -> None:
        """See to a version that was the current one until now."""
        name, version = model.manifest.name, model.manifest.version
        if version in self._registry.wanted_others.get(name, set()):
            self._registry.add_other(model)
        else:
            self._metrics.live.remove(name, version)
            self._drainage.add(model)

    async def _is_about_to_be_current(self, name: str) -> bool:
        """Whether what was the candidate was promoted, and waits here to be swapped in: it answers on so long."""
        before, live = self._registry.candidates.get(name), self._registry.live.get(name)
        if before is None or live is None or live.manifest.version == before.version:
            return False
        current = await self._loader.run(lambda: self._loader.repository.current(name))
        return current == Current(before.version, before.manifest_sha256)

    def _try(self, name: str, candidate: Candidate | None) -> None:
        self._registry.candidate_refusals.pop(name, None)
        before = self._registry.candidates.pop(name, None)
        if before is not None:
            self._metrics.candidate_share.remove(name, before.version)
        if candidate is not None:
            self._registry.candidates[name] = candidate
            self._metrics.candidate_share.labels(name, candidate.version).set(candidate.share)
        if candidate != before:
            told = f"{candidate.version} on {candidate.share:.1%}" if candidate else "none any more"
            logger.info("%s tries a candidate: %s", name, told)

    def _note_trouble(self, name: str, error: ModelsError) -> None:
        known = self._registry.candidate_refusals.get(name)
        if known is None or known.detail != str(error):
            self._registry.candidate_refusals[name] = Refusal.of(None, error)
            logger.error("the candidate of before is kept: %s", error)

    async def _load(self, name: str, version: str) -> None:
        key = f"{name}/{version}"
        refusal = self._registry.other_refusals.get(name, {}).get(version)
        if await self._loader.has_been_signed(name, version, refusal):
            self._attempts.forget(key)
        if not self._attempts.is_due(key, version):
            return
        try:
            loaded = await self._loader.load(name, self._pinned(name, version))
        except Exception as error:
            self._refuse(name, version, error)
            return
        await self.find_wanted(name)
        if version not in self._registry.wanted_others.get(name, ()) or name in self._registry.unloaded:
            logger.info("%s %s is loaded and wanted no more", name, version)
            return
        self._attempts.forget(key)
        self._registry.other_refusals.get(name, {}).pop(version, None)
        self._registry.add_other(self._enliven(loaded))
        self._metrics.loads.labels(name, "loaded").inc()
        logger.info("%s %s is live besides the current version", name, version)

    def _pinned(self, name: str, version: str) -> str | Current:
        candidate = self._registry.candidates.get(name)
        if candidate is None or candidate.version != version:
            return version
        return Current(version, candidate.manifest_sha256)

    def _refuse(self, name: str, version: str, error: Exception, *, for_good: bool = False) -> None:
        for_good = for_good or isinstance(error, LoadTimedOut)
        self._attempts.note(f"{name}/{version}", version, for_good=for_good)
        self._registry.other_refusals.setdefault(name, {})[version] = Refusal.of(version, error)
        self._metrics.loads.labels(name, "refused").inc()
        trace = None if isinstance(error, ModelsError) else error
        logger.error("%s %s is refused: %s: %s", name, version, type(error).__name__, error, exc_info=trace)
