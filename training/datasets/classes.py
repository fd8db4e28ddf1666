"""The classes of a labelled data set, and whether there is enough of each to train and to measure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from training.datasets.reading import listed
from training.datasets.splitting import Part, check_parts
from training.errors import DataInvalid

REMEDIES: dict[Part, str] = {
    "train": "add examples of each, or leave the class out",
    "test": "add examples of each, leave the class out, raise the test fraction, or say which part each is in",
}


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
    total = sum(counts.values(), Counter[int]())
    for part, remedy in REMEDIES.items():
        missing = [f"{label!r} ({total[i]} in all)" for i, label in enumerate(labels) if not counts[part][i]]
        if missing:
            raise DataInvalid(f"{source}: no {part} example of {listed(missing)}; {remedy}")
    check_parts(source, {part: count.total() for part, count in counts.items()})
