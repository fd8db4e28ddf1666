"""How each kind of table is read: a row or a skipped one after the other, never the whole file.

Source: jsonlines.org, and the Apache Parquet format; for CSV and TSV see `delimited`.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from training.datasets.columns import Columns, Row, flaw_of
from training.datasets.delimited import TAB, read_delimited
from training.datasets.reading import NOT_UTF8, Skipped
from training.errors import DataInvalid, DataUnavailable

BATCH_ROWS = 4096

Format = Callable[[Path, Columns], Iterator[Row | Skipped]]


def format_of(file: Path) -> Format:
    """Return how to read `file`, by its ending.

    Raises:
        DataInvalid: The ending is not a known one.
    """
    name = file.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in _FORMATS or name.endswith(".parquet.gz"):
        raise DataInvalid(f"{file} has an unknown ending; known are {', '.join(_FORMATS)}, and .gz after a text's")
    return _FORMATS[ending]


def _delimited(file: Path, columns: Columns, delimiter: str) -> Iterator[Row | Skipped]:
    with _lines_of(file) as lines:
        yield from read_delimited(lines, file, columns, delimiter)


def _json_lines(file: Path, columns: Columns) -> Iterator[Row | Skipped]:
    seen: dict[str, None] = {}
    with _lines_of(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            item = _json_object(f"line {number}", line)
            if isinstance(item, Skipped):
                yield item
                continue
            seen.update(dict.fromkeys(item))
            yield columns.pick(f"line {number}", item)
    columns.names = list(seen)


def _json_object(where: str, line: str) -> dict[str, object] | Skipped:
    if flaw := flaw_of(line):
        return Skipped(where, flaw)
    if line.lstrip().startswith("["):
        return Skipped(where, "is a list, or begins one; an object a line is wanted")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Skipped(where, "is not JSON")
    return value if isinstance(value, dict) else Skipped(where, "is not a JSON object")


def _lines_of(file: Path) -> TextIOWrapper:
    # Bytes that are not UTF-8 pass as lone surrogates, so that one bad row is told from its neighbours.
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return file.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _parquet(file: Path, columns: Columns) -> Iterator[Row | Skipped]:
    arrow, parquet = _pyarrow(file)
    try:
        with parquet.ParquetFile(file) as opened:
            header = opened.schema_arrow.names
            columns.name(header)
            wanted = header if columns.wanted is None else columns.wanted
            number = 0
            for batch in opened.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                for index in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(f"row {number}", batch, index, columns)
    except (arrow.ArrowException, OSError) as error:
        raise DataInvalid(f"{file} is not a whole Parquet file: {str(error).splitlines()[0]}") from error


def _parquet_row(where: str, batch: Any, index: int, columns: Columns) -> Row | Skipped:  # noqa: ANN401 (untyped)
    try:
        return columns.pick(where, {name: _value(batch.column(name)[index]) for name in batch.schema.names})
    except UnicodeDecodeError:
        return Skipped(where, NOT_UTF8)


def _value(scalar: Any) -> object:  # noqa: ANN401 (likewise)
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except ValueError:
        # Python has no time of nanoseconds.
        return scalar.cast("string").as_py()


def _pyarrow(file: Path) -> tuple[Any, Any]:
    # Imported here, and by name: it is large, optional, and without types.
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataUnavailable(f"{file}: reading Parquet needs pyarrow: pip install pyarrow") from error


_FORMATS: dict[str, Format] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter=TAB),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
