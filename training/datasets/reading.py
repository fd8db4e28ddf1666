"""What became of the rows or files of a data set: what was left out, where, and why."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MOST_PLACES = 10
MOST_REASONS = 10


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
    """

    rows: int
    skipped: tuple[Skipped, ...]
    duplicates: int = 0
    conflicting: int = 0
    straddling: int = 0

    def lines(self) -> list[str]:
        """Tell it in lines for a person: counts by reason, and the first places of each."""
        counts = {
            "dropped: the same as an example before them": self.duplicates,
            "dropped: the same input is in test or validation too": self.straddling,
            "kept, but the same input has more than one label": self.conflicting,
        }
        told = [f"{count} {what}" for what, count in counts.items() if count]
        return [f"{self.rows} examples read, {len(self.skipped)} skipped", *self._reasons(), *told]

    def _reasons(self) -> list[str]:
        places: defaultdict[str, list[str]] = defaultdict(list)
        for skipped in self.skipped:
            places[skipped.reason].append(skipped.where)
        by_count = sorted(places.items(), key=lambda item: -len(item[1]))
        told = [f"{len(where)} skipped: {reason} ({listed(where)})" for reason, where in by_count[:MOST_REASONS]]
        rest = sum(len(where) for _, where in by_count[MOST_REASONS:])
        return [*told, f"{rest} skipped for other reasons"] if rest else told


def listed(names: Sequence[str], most: int = MOST_PLACES) -> str:
    """Join the first names with commas, and count the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
