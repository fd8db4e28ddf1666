"""What became of the rows or files of a data set: what was left out, where, and why."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from training.errors import DataInvalid

MOST_PLACES = 10
MOST_REASONS = 10
# Of each, in the one line of an error.
MOST_IN_ERROR = 3

NOT_UTF8 = "is not UTF-8"
UNMATCHED = "has quotes that do not match"
REMEDIES: Mapping[str, str] = {
    NOT_UTF8: "save the file as UTF-8",
    UNMATCHED: 'a quote within quotes is written twice ("")',
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or file that is left out: `where` names it, such as `line 17`, and `reason` goes on from there."""

    where: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What became of the rows or files of a data set.

    Attributes:
        rows: How many there were, the skipped ones too; blank lines and hidden files do not count.
        skipped: Those that could not be used.
        duplicates: Dropped: the same as an example before them.
        conflicting: Inputs that stand there under more than one label; all of them are kept.
        straddling: Dropped: the same input also stands in a part that is measured on.
        notes: What else a person should know, a line each.
    """

    rows: int
    skipped: tuple[Skipped, ...]
    duplicates: int = 0
    conflicting: int = 0
    straddling: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Tell it in lines for a person: counts by reason, and the first places of each."""
        first = f"{self.rows} examples read, {len(self.skipped)} skipped"
        conflicting = f"{self.conflicting} kept, but the same input has more than one label"
        told = [*self.dropped(), *([conflicting] if self.conflicting else []), *self.notes]
        return [first, *_reasons(self.skipped, MOST_REASONS, MOST_PLACES), *told]

    def dropped(self) -> list[str]:
        """Tell what is not there though it could be used."""
        counts = {
            "dropped: the same as an example before them": self.duplicates,
            "dropped: the same input is in test or validation too": self.straddling,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


@contextmanager
def telling(skipped: Sequence[Skipped], dropped: Sequence[str] = ()) -> Iterator[None]:
    """Have an error that stops the reading tell what was left out too: it is often the cause.

    Args:
        skipped: What could not be used.
        dropped: What was left out besides, a line each.

    Raises:
        DataInvalid: The one that was raised within, and the first reasons.
    """
    try:
        yield
    except DataInvalid as error:
        reasons = _reasons(skipped, MOST_IN_ERROR, MOST_IN_ERROR)
        raise DataInvalid("; ".join([str(error), *reasons, *dropped])) from error


def _reasons(skipped: Sequence[Skipped], most: int, most_places: int) -> list[str]:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for each in skipped:
        places[each.reason].append(each.where)
    by_count = sorted(places.items(), key=lambda item: -len(item[1]))
    told = [
        f"{len(where)} skipped: {reason} ({listed(where, most_places)})" + _remedy(reason)
        for reason, where in by_count[:most]
    ]
    rest = sum(len(where) for _, where in by_count[most:])
    return [*told, f"{rest} skipped for other reasons"] if rest else told


def _remedy(reason: str) -> str:
    return f"; {REMEDIES[reason]}" if reason in REMEDIES else ""


def listed(names: Sequence[str], most: int = MOST_PLACES) -> str:
    """Join the first names with commas, and count the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
