"""A table in a file: CSV, TSV, JSON Lines or Parquet. Rows that cannot be read are told, and never fatal."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets.columns import Columns, Row
from training.datasets.reading import Skipped, telling
from training.datasets.table_formats import format_of
from training.errors import DataInvalid, DataUnavailable


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        columns: Every column's name, also of those that were not asked for.
        rows: In the file's order.
        skipped: The rows that could not be read.
        sha256: Of the file.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    skipped: list[Skipped]
    sha256: str


def read_table(file: Path, wanted: Sequence[str] | None = None) -> Table:
    """Read a table.

    Args:
        file: Ends in .csv, .tsv, .jsonl, .ndjson or .json (an object a line), each also with .gz; or .parquet.
        wanted: The columns to keep; None keeps all.

    Raises:
        DataUnavailable: The file cannot be opened, or reading it needs a package that is not installed.
        DataInvalid: It is no such table, has no row that can be read, or lacks a wanted column.
    """
    columns = Columns(file, wanted)
    try:
        with file.open("rb") as stream:
            read = format_of(file)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        rows, skipped = _sort_out(read(file, columns))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataInvalid(f"{file} cannot be decompressed: {error}") from error
    except OSError as error:
        raise DataUnavailable(f"{file} cannot be read: {error.strerror}") from error
    with telling(skipped):
        if not rows:
            raise DataInvalid(f"{file} {_why_no_rows(columns, skipped)}")
        columns.check_wanted()
    return Table(tuple(name for name in columns.names if name), rows, skipped, sha256)


def _sort_out(items: Iterable[Row | Skipped]) -> tuple[list[Row], list[Skipped]]:
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for item in items:
        if isinstance(item, Row):
            rows.append(item)
        else:
            skipped.append(item)
    return rows, skipped


def _why_no_rows(columns: Columns, skipped: Sequence[Skipped]) -> str:
    if skipped:
        return "has no row that can be read"
    return "has a header but no rows" if columns.names else "is empty"
