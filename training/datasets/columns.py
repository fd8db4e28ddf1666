"""The columns of a table, and how a row is made of those that are wanted."""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets.reading import NOT_UTF8, Skipped, listed
from training.errors import DataInvalid

LONGEST_NAME = 40

HOLDS_NUL = "holds a NUL byte"
HALF_PAIR = "holds half of a surrogate pair, which is no character"
# Up to here every whole number is a float.
MOST_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Row:
    """A row: `where` names the line it starts on, such as `line 17`; an absent or null cell is empty."""

    where: str
    cells: dict[str, str]


class Columns:
    """The columns of one file: `names` are those that are there, `wanted` those to keep; None keeps all."""

    def __init__(self, file: Path, wanted: Sequence[str] | None) -> None:
        self.file = file
        self.wanted = wanted
        self.names: list[str] = []

    def name(self, header: Sequence[str]) -> None:
        """Take the names from the head of the file.

        Raises:
            DataInvalid: They do not name columns, or not the wanted ones.
        """
        self.names = list(header)
        if flaw := flaw_of("".join(header)):
            raise DataInvalid(f"{self.file}: its header {flaw}; save the file as UTF-8")
        if not any(header):
            raise DataInvalid(f"{self.file} has no header: its first line must name the columns")
        # Columns that nobody asks for do no harm; an index column often has no name at all.
        counts = Counter(self.names)
        asked_for = self.names if self.wanted is None else self.wanted
        if twice := sorted({name for name in asked_for if name and counts[name] > 1}):
            raise DataInvalid(f"{self.file}: more than one column is called {_quoted(twice)}")
        self.check_wanted()

    def check_wanted(self) -> None:
        """Refuse a file that lacks a wanted column.

        Raises:
            DataInvalid: Naming the column, and those that are there.
        """
        for name in self.wanted or ():
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataInvalid(
                    f"{self.file} has no column {name!r}; its columns are {_quoted(self.names)}{hint}"
                )

    def pick(self, where: str, cells: Mapping[str, object]) -> Row | Skipped:
        """Make a row of the wanted cells, or tell which of them is no text."""
        texts: dict[str, str] = {}
        for name in cells if self.wanted is None else self.wanted:
            text = _text_of(cells.get(name))
            if text is None:
                return Skipped(where, f"holds a {type(cells[name]).__name__} where {name!r} should be a text")
            texts[name] = text
        flaw = flaw_of("".join(texts.values()))
        return Skipped(where, flaw) if flaw else Row(where, texts)


def flaw_of(text: str) -> str | None:
    """Return what keeps `text` from being a text; None if nothing does."""
    if "\0" in text:
        return HOLDS_NUL
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # So do bytes pass that are not UTF-8; others were written as such, with an escape.
        return NOT_UTF8 if "\udc80" <= text[error.start] <= "\udcff" else HALF_PAIR
    return None


def _text_of(value: object) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""  # How tables of numbers spell a missing value.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT:
        return str(int(value))  # A column of whole numbers with a gap is one of floats to many programs.
    return None if isinstance(value, list | tuple | dict | bytes) else str(value)


def _quoted(names: Sequence[str]) -> str:
    # Where the header is missing, the texts of the first row stand here.
    shortened = (name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..." for name in names if name)
    return listed([repr(name) for name in shortened])
