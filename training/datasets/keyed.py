"""Examples by their key: those of one key share a part, and copies are dropped."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from training.datasets.reading import Reading, Skipped
from training.datasets.splitting import PARTS, Part, part_of

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Keyed(Generic[Value]):
    """An example, and what makes it the same as another.

    Attributes:
        key: The sha256 of its input.
        answer: Its label or target; another example of the same key may have another one.
        given: The part that its source puts it in; None where the source names no parts.
        value: Whatever the example is made of.
    """

    key: bytes
    answer: str
    given: Part | None
    value: Value


@dataclass(frozen=True)
class Division(Generic[Value]):
    """Examples in their parts, and how many were dropped; the counts are those of `Reading`."""

    parts: dict[Part, list[Keyed[Value]]]
    duplicates: int
    conflicting: int
    straddling: int

    def reading(self, skipped: Sequence[Skipped]) -> Reading:
        """Add what could not be used, to tell what became of everything."""
        kept = sum(map(len, self.parts.values()))
        rows = kept + self.duplicates + self.straddling + len(skipped)
        return Reading(rows, tuple(skipped), self.duplicates, self.conflicting, self.straddling)


def divide(examples: Sequence[Keyed[Value]], validation_fraction: float, test_fraction: float) -> Division[Value]:
    """Split examples by their keys, keeping their order.

    Where parts are given, one that no example was given to is made out of train; and a key that was given to
    several parts stays in test, else in validation.

    Raises:
        DataInvalid: The fractions leave nothing to train on.
    """
    taken = _strongest(examples)
    given = set(taken.values())
    fractions = ("validation" not in given) * validation_fraction, ("test" not in given) * test_fraction
    parts: dict[Part, list[Keyed[Value]]] = {part: [] for part in PARTS}
    seen: set[tuple[bytes, str]] = set()
    straddling = 0
    for example in examples:
        if example.given != taken[example.key]:
            straddling += 1
        elif (example.key, example.answer) not in seen:
            seen.add((example.key, example.answer))
            parts[_settled(example, *fractions)].append(example)
    return Division(parts, len(examples) - straddling - len(seen), _conflicting(examples), straddling)


def plain(text: str) -> str:
    """Return `text` in NFC, with every run of white space as one space and none around."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def folded(text: str) -> str:
    """Return `text` as `plain` does, and without case."""
    return unicodedata.normalize("NFC", plain(text).casefold())


def key_of(text: str) -> bytes:
    """Return the key of a text: 32 bytes, so that keys cost little beside the texts."""
    return hashlib.sha256(text.encode()).digest()


def _strongest(examples: Sequence[Keyed[Value]]) -> dict[bytes, Part | None]:
    taken: dict[bytes, Part | None] = {}
    for example in examples:
        taken[example.key] = max(taken.get(example.key), example.given, key=_strength)
    return taken


def _strength(given: Part | None) -> int:
    # What is measured on stays; what is trained on gives way.
    return -1 if given is None else PARTS.index(given)


def _settled(example: Keyed[Value], validation_fraction: float, test_fraction: float) -> Part:
    if example.given in ("validation", "test"):
        return example.given
    return part_of(example.key, validation_fraction, test_fraction)


def _conflicting(examples: Sequence[Keyed[Value]]) -> int:
    answers_of = Counter(key for key, _ in {(example.key, example.answer) for example in examples})
    return sum(answers > 1 for answers in answers_of.values())
