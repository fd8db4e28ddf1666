"""The rows of a table that hold all that an example needs, and the part that each was given to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.datasets.columns import Row
from training.datasets.keyed import trimmed
from training.datasets.reading import Skipped, telling
from training.datasets.splitting import Part, part_named
from training.datasets.tables import read_table
from training.errors import DataInvalid


class FilledRow(NamedTuple):
    """A row with its required values, none of them blank; `given` is None where the table names no parts."""

    where: str
    values: tuple[str, ...]
    given: Part | None


@dataclass(frozen=True)
class FilledRows:
    """The usable rows of a table, the others, and the sha256 of the file."""

    rows: list[FilledRow]
    skipped: list[Skipped]
    sha256: str


def read_filled(file: Path, required: Sequence[str], split_column: str | None) -> FilledRows:
    """Read the rows of a table that hold a value in every required column.

    Args:
        file: As `read_table` takes it.
        required: The columns of an example.
        split_column: The column that says train, validation or test; None if there is none.

    Raises:
        DataUnavailable, DataInvalid: As `read_table`; or a column serves twice, or no row is usable.
    """
    wanted = [*required, *([split_column] if split_column is not None else [])]
    if len(set(wanted)) < len(wanted):
        raise DataInvalid(f"{file}: one column cannot serve twice: {', '.join(map(repr, wanted))}")
    table = read_table(file, wanted)
    rows: list[FilledRow] = []
    skipped = list(table.skipped)
    for row in table.rows:
        item = _filled(row, required, split_column)
        if isinstance(item, Skipped):
            skipped.append(item)
        else:
            rows.append(item)
    with telling(skipped):
        if not rows:
            raise DataInvalid(f"{file} has no row that can be used")
    return FilledRows(rows, skipped, table.sha256)


def _filled(row: Row, required: Sequence[str], split_column: str | None) -> FilledRow | Skipped:
    for column in required:
        if not trimmed(row.cells[column]):
            return Skipped(row.where, f"{column!r} is empty")
    given = None
    if split_column is not None:
        given = part_named(row.cells[split_column])
        if given is None:
            return Skipped(row.where, f"{split_column!r} is not train, validation or test")
    return FilledRow(row.where, tuple(row.cells[column] for column in required), given)
