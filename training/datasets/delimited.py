"""CSV and TSV: what stands on which lines, whatever a stray quote makes of it.

Source: RFC 4180. A TSV file may quote alike; most do not quote at all, so that a quote there is a character.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from training.datasets.columns import Columns, Row, flaw_of
from training.datasets.reading import UNMATCHED, Skipped
from training.errors import DataInvalid

TAB = "\t"
# A text may be a whole book; Python's own limit is 128 KiB. This is the largest that every system takes.
csv.field_size_limit(2**31 - 1)


class Lines:
    """The lines of a file, of which those of the last record can be read again."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._stream = iter(stream)
        self._again: deque[str] = deque()
        self._read = 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream)
        self._read += 1
        self.record.append(line)
        return line

    @property
    def numbers(self) -> range:
        """Where in the file the record stands, counted from 1."""
        return range(self._read - len(self.record) + 1, self._read + 1)

    def begin(self) -> None:
        """Begin a record."""
        self.record = []

    def back_to_second(self) -> None:
        """End the record after its first line: what follows is to be read again."""
        again = self.record[1:]
        self._again.extendleft(reversed(again))
        self._read -= len(again)
        del self.record[1:]


def read_delimited(stream: Iterable[str], file: Path, columns: Columns, delimiter: str) -> Iterator[Row | Skipped]:
    """Read the rows, the first of which names the columns.

    Args:
        stream: Lines with their ends as they are.
        file: Named in errors.
        columns: Take their names from the header.
        delimiter: Between fields.

    Raises:
        DataInvalid: The header cannot be read, or does not name the wanted columns.
    """
    stream = iter(stream)
    first = next(stream, "")
    lines = Lines(chain([first] if first else [], stream))
    # Where the header has a space after each comma so have the rows, and a quote after it opens a field.
    others = first.split(delimiter)[1:]
    spaced = delimiter != TAB and bool(others) and all(name.startswith(" ") for name in others)
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    while True:
        lines.begin()
        try:
            fields: list[str] | csv.Error = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = error
        if not fields:
            continue  # An empty line comes as no fields at all.
        if columns.names:
            yield from _items(fields, lines, columns, delimiter)
        elif isinstance(fields, csv.Error):
            raise DataInvalid(f"{file}: its header cannot be read: {fields}")
        else:
            columns.name([field.strip() for field in fields])


def _items(
    fields: list[str] | csv.Error, lines: Lines, columns: Columns, delimiter: str
) -> Iterator[Row | Skipped]:
    if delimiter == TAB and _is_unquoted(fields, lines.record, len(columns.names)):
        lines.back_to_second()
        fields = lines.record[0].rstrip("\r\n").split(TAB)
    if isinstance(fields, csv.Error):
        # One line is lost, not all that the stray quote swallowed.
        lines.back_to_second()
        yield Skipped(f"line {lines.numbers[0]}", UNMATCHED)
    elif len(fields) != len(columns.names):
        reason = f"has {len(fields)} fields where the header has {len(columns.names)}"
        yield from (Skipped(f"line {number}", reason) for number in lines.numbers)
    else:
        yield _row(f"line {lines.numbers[0]}", fields, columns)


def _is_unquoted(fields: list[str] | csv.Error, record: list[str], width: int) -> bool:
    """Whether a quote that seems to open a field is only a character: without it the first line is a whole row."""
    whole = [line.count(TAB) == width - 1 for line in record]
    fits = not isinstance(fields, csv.Error) and len(fields) == width
    # A text of several lines that is rightly quoted has no tabs in its further lines.
    return whole[0] and (not fits or any(whole[1:]))


def _row(where: str, fields: list[str], columns: Columns) -> Row | Skipped:
    if flaw := flaw_of("".join(fields)):
        return Skipped(where, flaw)
    return columns.pick(where, {name: field for name, field in zip(columns.names, fields, strict=True) if name})
