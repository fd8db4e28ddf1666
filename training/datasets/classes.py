"""The classes of a labelled data set, and whether there is enough of each to train and to measure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from training.datasets.reading import listed
from training.datasets.splitting import Part, check_parts
from training.errors import DataInvalid

REMEDIES: dict[Part, str] = {
    "train": "add examples of each, or leave the class out",
    "test": "add examples of each, leave the class out, or say which part each is in",
}
# How programs write that there is no value, without case.
MISSING_VALUES = frozenset({"nan", "null", "none", "n/a", "na", "#n/a", "<na>"})


def check_two_classes(source: Path, labels: Sequence[str]) -> None:
    """Refuse a data set in which there is nothing to tell apart.

    Raises:
        DataInvalid: There are fewer than two classes.
    """
    if len(labels) < 2:
        found = f"one class, {labels[0]!r}" if labels else "no class"
        raise DataInvalid(f"{source} has {found}; a classifier needs two or more")


def check_classes(source: Path, labels: Sequence[str], parts: Mapping[Part, Iterable[int]]) -> None:
    """Refuse a data set that cannot train, or cannot measure, each of its classes.

    Args:
        source: Named in the error.
        labels: Every class.
        parts: The class indices of the examples of each part.

    Raises:
        DataInvalid: Too few classes, a class with no example to train or to test on, or an empty part.
    """
    check_two_classes(source, labels)
    counts = {part: Counter(indices) for part, indices in parts.items()}
    for part, remedy in REMEDIES.items():
        if missing := _missing(part, labels, counts):
            raise DataInvalid(f"{source}: no {part} example of {missing}; {remedy}")
    check_parts(source, {part: count.total() for part, count in counts.items()})


def check_left(cause: str, remedy: str, labels: Sequence[str], parts: Mapping[Part, Iterable[int]]) -> None:
    """Refuse what an option has left of a data set, if it cannot train or measure each class any more.

    Args:
        cause: The option, as it was given.
        remedy: What to do about it.
        labels: Every class.
        parts: The class indices of the examples of each part that are left.

    Raises:
        DataInvalid: Naming the option, the classes and the remedy.
    """
    counts = {part: Counter(indices) for part, indices in parts.items()}
    for part in REMEDIES:
        if missing := _missing(part, labels, counts):
            raise DataInvalid(f"{cause} leaves no {part} example of {missing}; {remedy}")


def oddities(labels: Sequence[str]) -> tuple[str, ...]:
    """Return what a person should know of labels that may not be meant so, a line each."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[label.casefold()].append(label)
    by_case = [
        f"labels differ only in case: {listed([repr(label) for label in same])}"
        for same in alike.values()
        if len(same) > 1
    ]
    missing = [
        f"label {label!r} looks like a missing value" for label in labels if label.casefold() in MISSING_VALUES
    ]
    return (*by_case, *missing)


def _missing(part: Part, labels: Sequence[str], counts: Mapping[Part, Counter[int]]) -> str:
    """Name the classes that have nothing in a part; an empty text if all have something."""
    total = sum(counts.values(), Counter[int]())
    return listed([f"{label!r} ({total[i]} in all)" for i, label in enumerate(labels) if not counts[part][i]])
