"""Examples in their parts: those of one key share a part, and copies are dropped."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic

from training.datasets.keyed import Keyed, Value
from training.datasets.reading import Reading, Skipped
from training.datasets.splitting import PARTS, Part, part_of
from training.datasets.strata import OF_EVERY_CLASS, Strata, Stratum

MADE_OUT_OF = (None, "train")


@dataclass(frozen=True)
class Division(Generic[Value]):
    """Examples in their parts, and how many were dropped; the counts are those of `Reading`."""

    parts: dict[Part, list[Keyed[Value]]]
    duplicates: int
    conflicting: int
    straddling: int

    def reading(self, skipped: Sequence[Skipped], notes: tuple[str, ...] = ()) -> Reading:
        """Add what could not be used, to tell what became of everything."""
        kept = sum(map(len, self.parts.values()))
        rows = kept + self.duplicates + self.straddling + len(skipped)
        return Reading(rows, tuple(skipped), self.duplicates, self.conflicting, self.straddling, notes)


def divide(
    examples: Sequence[Keyed[Value]],
    validation_fraction: float,
    test_fraction: float,
    class_of: Callable[[Keyed[Value]], str] = lambda example: example.answer,
) -> Division[Value]:
    """Split examples by their keys, keeping their order.

    Where parts are given, one that no example was given to is made out of train; and a key that was given to
    several parts stays in test, else in validation. Of a class of three keys or more that the split leaves without
    an example to train or to test on, a key moves, as one does where the validation part would be empty.

    Args:
        examples: In the order of their source.
        validation_fraction: Share of the keys, where no example was given to validation.
        test_fraction: Share of the keys, where no example was given to test.
        class_of: What every part but validation must have of each.

    Raises:
        DataInvalid: The fractions leave nothing to train on.
    """
    taken = _strongest(examples)
    given = set(taken.values())
    made = [part for part in PARTS if part == "train" or part not in given]
    fractions = ("validation" in made) * validation_fraction, ("test" in made) * test_fraction
    settled = {key: _settled(key, part, *fractions) for key, part in taken.items()}
    used = [example for example in examples if example.given == taken[example.key]]
    _fill(settled, used, made, class_of)
    parts: dict[Part, list[Keyed[Value]]] = {part: [] for part in PARTS}
    seen: set[tuple[bytes, str]] = set()
    for example in used:
        if (example.key, example.answer) not in seen:
            seen.add((example.key, example.answer))
            parts[settled[example.key]].append(example)
    return Division(parts, len(used) - len(seen), _conflicting(examples), len(examples) - len(used))


def _strongest(examples: Sequence[Keyed[Value]]) -> dict[bytes, Part | None]:
    taken: dict[bytes, Part | None] = {}
    for example in examples:
        taken[example.key] = max(taken.get(example.key), example.given, key=_strength)
    return taken


def _strength(given: Part | None) -> int:
    # What is measured on stays; what is trained on gives way.
    return -1 if given is None else PARTS.index(given)


def _settled(key: bytes, given: Part | None, validation_fraction: float, test_fraction: float) -> Part:
    if given in ("validation", "test"):
        return given
    return part_of(key, validation_fraction, test_fraction)


def _fill(
    settled: dict[bytes, Part],
    used: Sequence[Keyed[Value]],
    made: Collection[Part],
    class_of: Callable[[Keyed[Value]], str],
) -> None:
    counts = Counter((class_of(example), settled[example.key]) for example in used)
    lacking = any(not counts[label, part] for label, _ in counts for part in OF_EVERY_CLASS)
    # Nearly always nothing is lacking, and then the strata of millions would only cost memory.
    if lacking or "validation" not in {part for _, part in counts}:
        strata = (Stratum(each.key, class_of(each), each.given in MADE_OUT_OF) for each in used)
        Strata(settled, strata, made).fill()


def _conflicting(examples: Sequence[Keyed[Value]]) -> int:
    answers_of = Counter(key for key, _ in {(example.key, example.answer) for example in examples})
    return sum(answers > 1 for answers in answers_of.values())
