"""The metrics of several worker processes, as those of one service.

Counters and histograms are summed, those of processes that have ended among them, so that they never fall. Gauges
are summed over the processes that live, but for what is the same in each.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

# What every process says alike.
SAME_IN_EACH = frozenset({"lantern_model_info", "lantern_candidate_share"})

Sample = tuple[str, dict[str, str], float]


class Family(TypedDict):
    """Series of one name, as they go over the channel."""

    name: str
    text: str
    type: str
    samples: Sequence[Sample]


Figures = Sequence[Family]
How = Literal["sum", "max", "min"]


def merge(each: Iterable[Figures]) -> list[Family]:
    """Merge the figures of several processes; the order is that in which they are first met."""
    families: dict[str, Family] = {}
    samples: dict[str, dict[tuple[str, ...], Sample]] = {}
    for figures in each:
        for family in figures:
            name = family["name"]
            families.setdefault(name, family)
            into = samples.setdefault(name, {})
            for sample in family["samples"]:
                _add(into, sample, family)
    return [{**family, "samples": list(samples[name].values())} for name, family in families.items()]


def lasting(figures: Figures) -> list[Family]:
    """What of a process's figures counts on when it has ended."""
    return [family for family in figures if family["type"] != "gauge"]


def _add(into: dict[tuple[str, ...], Sample], sample: Sample, family: Family) -> None:
    name, labels, value = sample
    key = (name, *(part for pair in sorted(labels.items()) for part in pair))
    if key in into:
        value = _merged(_how(name, family), into[key][2], value)
    into[key] = (name, labels, value)


def _how(sample: str, family: Family) -> How:
    if sample.endswith("_created"):
        return "min"
    return "max" if family["name"] in SAME_IN_EACH else "sum"


def _merged(how: How, one: float, other: float) -> float:
    if how == "sum":
        return one + other
    return max(one, other) if how == "max" else min(one, other)
