"""Which versions of a model are live besides the current one, as LANTERN_VERSIONS says."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

CURRENT = "current"
LATEST = re.compile(r"latest:([1-9][0-9]{0,2})")
PINNED = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})/(\d{8}\.[1-9]\d{0,5})")


@dataclass(frozen=True)
class VersionPolicy:
    """The newest so many, and some by name.

    Attributes:
        latest: How many of the newest; 0: none.
        pinned: Name and version of each that is wanted whatever is newer.
    """

    latest: int = 0
    pinned: Collection[tuple[str, str]] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the setting says: `current`, `latest:N` and `NAME/VERSION`, with commas between them.

        Raises:
            ValueError: One is none of these.
        """
        latest, pinned = 0, set()
        for word in (word.strip() for word in text.split(",")):
            if found := LATEST.fullmatch(word):
                latest = max(latest, int(found[1]))
            elif found := PINNED.fullmatch(word):
                pinned.add((found[1], found[2]))
            elif word != CURRENT:
                raise ValueError(f"{word!r} is none of {CURRENT}, latest:N and NAME/VERSION")
        return cls(latest, frozenset(pinned))

    def unknown(self, names: Collection[str]) -> set[str]:
        """Return what is pinned of models that are not among these: as `NAME/VERSION`."""
        return {f"{name}/{version}" for name, version in self.pinned if name not in names}

    def wanted(self, name: str, versions: Sequence[str]) -> set[str]:
        """Return which versions of a model are to be live.

        Args:
            name: The model's.
            versions: Those that are there, oldest first.
        """
        newest = versions[-self.latest :] if self.latest else ()
        return {*newest, *(version for model, version in self.pinned if model == name)}
