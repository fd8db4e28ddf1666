"""Scarce classes: the keys that change their part, so that every class is trained on and measured.

Of ten examples a hash leaves none for the test part one time in ten. Then the key of the class that lies nearest
moves there: which one it is depends on the data alone, and on no order.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from training.datasets.splitting import Part, place_of

# A class of fewer keys has none to spare.
LEAST_KEYS = 3
# What every class needs; of validation, one key of any class will do.
OF_EVERY_CLASS: tuple[Part, ...] = ("test", "train")


class Stratum(NamedTuple):
    """An example as far as it counts here: its key, its class, and whether its part was not given."""

    key: bytes
    label: str
    movable: bool


class Strata:
    """The classes of a data set, and how many keys of each are in each part.

    Args:
        part_of: The part of every key; changed in place.
        examples: Each of the data set.
        made: The parts that keys may move to: those that are not given.
    """

    def __init__(self, part_of: dict[bytes, Part], examples: Iterable[Stratum], made: Collection[Part]) -> None:
        self._part_of = part_of
        self._made = made
        self._labels_of: dict[bytes, tuple[str, ...]] = {}
        self._movable_of: dict[str, set[bytes]] = {}
        for key, label, movable in examples:
            if label not in self._labels_of.get(key, ()):
                self._labels_of[key] = (*self._labels_of.get(key, ()), label)
            if movable:
                self._movable_of.setdefault(label, set()).add(key)
        self._counts = Counter(
            (label, part_of[key]) for key, labels in self._labels_of.items() for label in labels
        )
        self._sizes = Counter(label for labels in self._labels_of.values() for label in labels)

    def fill(self) -> None:
        """Move keys, as few as it takes, until no class lacks one to train or to test on.

        A class that has fewer than three, or none to spare, stays as it is.
        """
        for label in sorted(self._sizes):
            for part in OF_EVERY_CLASS:
                if part in self._made and not self._counts[label, part] and self._sizes[label] >= LEAST_KEYS:
                    self._fill(part, self._movable_of.get(label, ()))
        if "validation" in self._made and "validation" not in self._part_of.values():
            keys = set[bytes]().union(*self._movable_of.values())
            # Train has more to spare than what is measured on.
            if not self._fill("validation", [key for key in keys if self._part_of[key] == "train"]):
                self._fill("validation", keys)

    def _fill(self, part: Part, keys: Iterable[bytes]) -> bool:
        """Move one of the keys to a part; return whether any can be spared."""
        # The places of the test part are the lowest, and those of train the highest.
        nearest = sorted(keys, key=place_of, reverse=part == "train")
        key = next((key for key in nearest if self._can_be_spared(key)), None)
        if key is None:
            return False
        for label in self._labels_of[key]:
            self._counts[label, self._part_of[key]] -= 1
            self._counts[label, part] += 1
        self._part_of[key] = part
        return True

    def _can_be_spared(self, key: bytes) -> bool:
        part = self._part_of[key]
        return part == "validation" or all(self._counts[label, part] > 1 for label in self._labels_of[key])
