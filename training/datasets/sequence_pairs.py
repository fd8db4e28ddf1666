"""Pairs of a source text and what it should become, read from a user's own table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from training.datasets.division import divide
from training.datasets.keyed import Keyed, key_of, plain, trimmed
from training.datasets.reading import Reading, telling
from training.datasets.rows import read_filled
from training.datasets.splitting import TEST_FRACTION, VALIDATION_FRACTION, check_fractions, check_parts


class SequencePair(NamedTuple):
    """A source, and every target that is accepted for it: at least one, as written, in the file's order."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class SequencePairs:
    """A data set with its three parts, each in the file's order; `test` is never used for choosing weights."""

    train: list[SequencePair]
    validation: list[SequencePair]
    test: list[SequencePair]
    reading: Reading
    sha256: str


def load(
    file: Path,
    source_column: str,
    target_column: str,
    split_column: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    test_fraction: float = TEST_FRACTION,
    seen_as: Callable[[str], str] = plain,
    written_as: Callable[[str], str] = plain,
) -> SequencePairs:
    """Read pairs and split them; rows whose sources are the same are one pair with several targets.

    Args:
        file: A table, as `read_table` takes it.
        source_column: Name of the column of sources.
        target_column: Name of the column of targets.
        split_column: Name of a column that says train, validation or test; a part that it never names is made
            out of train.
        validation_fraction: Share of the sources for the validation part, where that is not given.
        test_fraction: Share of the sources for the test part, where that is not given.
        seen_as: What the model will see of a source: two that it cannot tell apart are the same.
        written_as: What the model can write of a target.

    Raises:
        DataUnavailable: The file cannot be read.
        DataInvalid: It is no such table, or one of the parts would be empty.
    """
    check_fractions(validation_fraction, test_fraction)
    filled = read_filled(file, (source_column, target_column), split_column)
    rows = [
        Keyed(key_of(seen_as(source)), written_as(target), given, source)
        for _, (source, target), given in filled.rows
    ]
    division = divide(rows, validation_fraction, test_fraction, class_of=lambda _: "")
    parts = {part: _joined(rows_of_part) for part, rows_of_part in division.parts.items()}
    changed = sum(written_as(target) != trimmed(target) for _, (_, target), _ in filled.rows)
    notes = (f"{changed} targets have line breaks or several spaces in a row, which become one space",)
    # Several targets are no contradiction here.
    reading = replace(division.reading(filled.skipped, notes if changed else ()), conflicting=0)
    with telling(reading.skipped, reading.dropped()):
        check_parts(file, {part: len(pairs) for part, pairs in parts.items()})
    return SequencePairs(parts["train"], parts["validation"], parts["test"], reading, filled.sha256)


def _joined(rows: list[Keyed[str]]) -> list[SequencePair]:
    pairs: dict[bytes, SequencePair] = {}
    for row in rows:
        pair = pairs.get(row.key, SequencePair(row.value, ()))
        pairs[row.key] = SequencePair(pair.source, (*pair.targets, row.answer))
    return list(pairs.values())
