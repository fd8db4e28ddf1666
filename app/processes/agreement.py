"""Which version every worker process serves: it changes once all of them could serve the new one, or none.

A worker process *stands* at a version of a model once it has loaded and warmed up what the repository names as
current. The version that all stand at is decided, and they swap. One that somebody cannot load is let go by
everybody. Whoever is late does not hold up the others for ever.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection

from models.current import Current

# So long the first that stands at a version waits for the others; more than a slow load takes.
LAGGARD_S = 120.0


class Agreement:
    """What is decided, and where each worker process stands.

    Args:
        clock: Monotonic seconds.

    Attributes:
        decided: Model -> the version to be served.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.decided: dict[str, Current] = {}
        self._clock = clock
        self._stands: defaultdict[str, dict[int, Current]] = defaultdict(dict)
        self._since_s: dict[tuple[str, Current], float] = {}
        # How often each was told to let a version go, and has not said yet that it did.
        self._letting_go: Counter[tuple[int, str, Current]] = Counter()

    def stand(self, worker: int, model: str, version: Current) -> None:
        """Note that a worker could serve a version from now on, unless it is about to let it go."""
        if self._letting_go[worker, model, version]:
            return  # It said so before it heard of the refusal.
        self._stands[model][worker] = version
        self._since_s.setdefault((model, version), self._clock())
        self._forget()

    def refuse(self, model: str, version: Current) -> bool:
        """Note that a worker cannot load a version; return whether the others must let it go."""
        if self.decided.get(model) == version:
            return False  # They serve it: only the one who cannot goes without.
        stands = self._stands[model]
        self._stands[model] = {worker: at for worker, at in stands.items() if at != version}
        self._forget()
        return True

    def must_let_go(self, worker: int, model: str, version: Current) -> None:
        """Note that a worker was told to let a version go: `has_let_go` follows."""
        self._letting_go[worker, model, version] += 1

    def has_let_go(self, worker: int, model: str, version: Current) -> None:
        """Note that a worker did: to stand at that version is news again."""
        self._letting_go -= Counter([(worker, model, version)])

    def remove(self, worker: int) -> None:
        """Note that a worker is gone."""
        self._letting_go = Counter({key: count for key, count in self._letting_go.items() if key[0] != worker})
        for stands in self._stands.values():
            stands.pop(worker, None)
        self._forget()

    def forget_decided(self) -> None:
        """Begin anew, since nobody is left who serves what was decided."""
        self.decided.clear()

    def decide(self, voters: Collection[int]) -> list[tuple[str, Current]]:
        """Return what is newly decided.

        Args:
            voters: The workers that serve; before there is any, whoever is first decides.
        """
        found = [(model, version) for model in self._stands for version in self._due(model, set(voters))]
        for model, version in found:
            self.decided[model] = version
            # Whoever still stands elsewhere is late: its version has no claim until somebody comes to it anew.
            others = [key for key in self._since_s if key[0] == model and key[1] != version]
            for key in others:
                del self._since_s[key]
        return found

    def _due(self, model: str, voters: set[int]) -> list[Current]:
        stands = self._stands[model]
        for version in dict.fromkeys(stands.values()):
            if version == self.decided.get(model):
                continue
            there = {worker for worker, at in stands.items() if at == version}
            since_s = self._since_s.get((model, version))
            late = since_s is not None and self._clock() - since_s >= LAGGARD_S
            if voters <= there or (late and voters & there):
                return [version]
        return []

    def _forget(self) -> None:
        taken = {(model, version) for model, stands in self._stands.items() for version in stands.values()}
        self._since_s = {key: since_s for key, since_s in self._since_s.items() if key in taken}
