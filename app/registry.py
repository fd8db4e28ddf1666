"""What is live: name -> the version that answers. Used on the event loop only, so a swap is one assignment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Self

from app.batching import Batcher
from app.errors import InvalidRequest, ModelNotFound, ModelNotReady, VersionNotFound
from app.inference import LoadedModel
from models.candidate import Candidate
from models.errors import KeyFileInvalid, ModelsError, SignatureInvalid, SignatureMissing
from models.manifest import Manifest, Task
from models.repository import InputKind

KIND_BY_TASK: Mapping[Task, InputKind] = {
    "image-classification": "image",
    "text-classification": "text",
    "text-to-text": "text",
}
LOADING_RETRY_AFTER_S = 5.0
# By name, for that is all that another worker process tells.
FOR_ITS_SIGNATURE = frozenset(error.__name__ for error in (SignatureMissing, SignatureInvalid, KeyFileInvalid))


@dataclass(frozen=True)
class LiveModel:
    """A version that answers requests."""

    loaded: LoadedModel
    batcher: Batcher
    loaded_at: datetime

    @cached_property
    def manifest(self) -> Manifest:
        """What its bundle says of itself."""
        return self.loaded.bundle.manifest

    @cached_property
    def kind(self) -> InputKind:
        """What it takes."""
        return KIND_BY_TASK[self.manifest.task]


@dataclass(frozen=True)
class Refusal:
    """A version that could not go live."""

    version: str | None
    error: str
    detail: str
    at: datetime

    @property
    def for_its_signature(self) -> bool:
        """Whether it is refused for what can be mended without another version: its signature, or the keys."""
        return self.error in FOR_ITS_SIGNATURE

    @classmethod
    def of(cls, version: str | None, error: Exception) -> Self:
        """Say what went wrong; of a fault of ours, only that there was one."""
        detail = str(error) if isinstance(error, ModelsError) else "the service's log says why"
        return cls(version, type(error).__name__, detail, datetime.now(UTC))


class Registry:
    """The live models, the refused versions, and the defaults.

    Of each model one version is current, and answers whoever names none; others may be live beside it.

    Args:
        configured_defaults: Kind of input -> name, from the settings; they win over the repository's.
        required: The models without which nothing is ready; None: those that are there at the first look.
    """

    def __init__(
        self, configured_defaults: Mapping[InputKind, str | None], required: Iterable[str] | None = None
    ) -> None:
        self.live: dict[str, LiveModel] = {}
        self.refusals: dict[str, Refusal] = {}
        self.candidates: dict[str, Candidate] = {}
        self.candidate_refusals: dict[str, Refusal] = {}
        self.wanted_others: dict[str, set[str]] = {}
        self.other_refusals: dict[str, dict[str, Refusal]] = {}
        self._others: dict[str, dict[str, LiveModel]] = {}
        self.names: set[str] = set()
        self.unloaded: set[str] = set()
        self.hung: set[str] = set()
        self.listed = False
        self.looked = False
        self.trouble: str | None = None
        self.required = None if required is None else set(required)
        self.repository_defaults: Mapping[InputKind, str] = {}
        self._configured_defaults = configured_defaults

    @property
    def ready(self) -> bool:
        """Whether something is live, and nothing that was wanted from the start is missing.

        A model that is published later does not take a serving instance out of its load balancer while it loads.
        """
        return self.looked and not self.missing and (bool(self.live) or self.only_unloaded)

    @property
    def only_unloaded(self) -> bool:
        """Whether there are models, and each was unloaded; only a service that is asked can load them again."""
        return bool(self.names) and self.names <= self.unloaded

    @property
    def missing(self) -> set[str]:
        """The configured defaults, and the models there at the start, that are not live."""
        defaults = {name for name in self._configured_defaults.values() if name}
        return ((self.required or set()) | defaults) - set(self.live) - self.unloaded - self.hung

    def note_names(self, names: Iterable[str]) -> None:
        """Take note of what the repository holds now; what is live stays known even if it is gone from there."""
        self.names = {*names, *self.live}
        self.hung &= self.names
        self.required = self.names if self.required is None else self.required & self.names
        self.refusals = {name: refusal for name, refusal in self.refusals.items() if name in self.names}
        self.listed, self.trouble = True, None

    def swap(self, name: str, model: LiveModel) -> LiveModel | None:
        """Make a version the one that answers; return the one that was."""
        before = self.live.get(name)
        self.live[name] = model
        self.hung.discard(name)
        self.names.add(name)
        return before

    def add_other(self, model: LiveModel) -> None:
        """Make a version live besides the current one."""
        self._others.setdefault(model.manifest.name, {})[model.manifest.version] = model

    def take_other(self, name: str, version: str) -> LiveModel | None:
        """Take a version out that is live besides the current one, if it is."""
        return self._others.get(name, {}).pop(version, None)

    def others_of(self, name: str) -> list[LiveModel]:
        """The versions of a model that are live besides the current one."""
        return list(self._others.get(name, {}).values())

    def versions_of(self, name: str) -> list[LiveModel]:
        """All live versions of a model, the current one first."""
        current = self.live.get(name)
        return [*([current] if current is not None else []), *self.others_of(name)]

    def take_all(self, name: str) -> list[LiveModel]:
        """Take out every live version of a model, and whatever else is known of it; return them."""
        taken = self.versions_of(name)
        for known in (self.live, self._others, self.candidates, self.wanted_others):
            known.pop(name, None)
        for refused in (self.refusals, self.other_refusals, self.candidate_refusals):
            refused.pop(name, None)
        return taken

    def everything_live(self) -> list[LiveModel]:
        """All live versions of all models."""
        return [model for name in {*self.live, *self._others} for model in self.versions_of(name)]

    def resolve(self, name: str, version: str | None = None, key: str | None = None) -> LiveModel:
        """Return a live version of a name: the named one, the candidate if it answers the key, or the current one.

        Raises:
            ModelNotFound: The repository has no such model, or it was unloaded.
            ModelNotReady: It has, but it is not live yet, or could not be loaded.
            VersionNotFound: That version is not live, and not to be.
        """
        if key is not None and version is None and (candidate := self._candidate(name, key)) is not None:
            return candidate
        if version is not None and (other := self._others.get(name, {}).get(version)) is not None:
            return other
        model = self.live.get(name)
        if model is None:
            if name in self.unloaded:
                raise ModelNotFound(f"{name} is unloaded until an administrator loads it again")
            if name in self.names or not self.listed:
                raise ModelNotReady(self._why_not_live(name), LOADING_RETRY_AFTER_S)
            raise ModelNotFound(f"no model {name!r}; there are: {_listed(self.names)}")
        if version not in (None, model.manifest.version):
            if version in self.wanted_others.get(name, ()):
                raise ModelNotReady(self._why_not_live(name, version), LOADING_RETRY_AFTER_S)
            live = ", ".join(sorted(each.manifest.version for each in self.versions_of(name)))
            raise VersionNotFound(f"{name} {version!r} is not live; there are: {live}")
        return model

    def default(self, kind: InputKind, key: str | None = None) -> LiveModel:
        """Return the model for a kind of input that was addressed to none.

        Raises:
            InvalidRequest: There is no such model, or several and no default; with the choices.
            ModelNotReady: Nothing is live yet, or the default is not.
        """
        if name := self.default_name(kind):
            return self.resolve(name, key=key)
        if not self.live:
            raise ModelNotReady(self.why_nothing_is_live(), LOADING_RETRY_AFTER_S)
        choices = {name for name, model in self.live.items() if model.kind == kind}
        if not choices:
            raise InvalidRequest(f"no live model takes {kind}s; the live models are: {_listed(set(self.live))}")
        raise InvalidRequest(
            f"model: several take {kind}s and none is the default; name one of {_listed(choices)}"
        )

    def default_name(self, kind: InputKind) -> str | None:
        """The setting's, else the repository's, else the only live one of that kind."""
        if name := self._configured_defaults.get(kind) or self.repository_defaults.get(kind):
            return name
        choices = [name for name, model in self.live.items() if model.kind == kind]
        return choices[0] if len(choices) == 1 else None

    def shadow(self, name: str, key: str) -> LiveModel | None:
        """Return the candidate, if it is live and the requests of a key are copied to it."""
        candidate = self.candidates.get(name)
        return self._tried(name, candidate) if candidate and candidate.shadows(name, key) else None

    def tried(self, name: str) -> LiveModel | None:
        """Return the candidate, if it is live, whatever its shares."""
        candidate = self.candidates.get(name)
        return self._tried(name, candidate) if candidate else None

    def _candidate(self, name: str, key: str) -> LiveModel | None:
        candidate = self.candidates.get(name)
        return self._tried(name, candidate) if candidate and candidate.answers(name, key) else None

    def _tried(self, name: str, candidate: Candidate) -> LiveModel | None:
        other = self._others.get(name, {}).get(candidate.version)
        if other is None or other.loaded.bundle.manifest_sha256 != candidate.manifest_sha256:
            return None  # Not loaded yet, or refused: the current version answers everybody.
        return other

    def _why_not_live(self, name: str, other: str | None = None) -> str:
        refusal = self.other_refusals.get(name, {}).get(other) if other else self.refusals.get(name)
        named = f"{name} {other}" if other else name
        return f"{named} could not be loaded: {refusal.error}" if refusal else f"{named} is being loaded"

    def why_nothing_is_live(self) -> str:
        """Say what stands in the way of the first live model."""
        if self.trouble is not None:
            return self.trouble
        if not self.looked:
            return "the models are being loaded"
        if not self.names:
            return "no model is published; python -m training publishes one"
        return "; ".join(self._why_not_live(name) for name in sorted(self.names))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
