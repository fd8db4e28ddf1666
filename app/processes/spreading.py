"""Which worker process gets the next connection."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A worker process that could serve a connection."""

    @property
    def fit(self) -> bool:
        """Whether its models are live, in the versions that all serve."""
        ...

    @property
    def stalled(self) -> bool:
        """Whether it seems to hang."""
        ...

    @property
    def open_connections(self) -> int:
        """How many it has."""
        ...

    @property
    def turn(self) -> int:
        """When it got its last one; a number that grows."""
        ...


Each = TypeVar("Each", bound=Candidate)


def by_preference(candidates: Iterable[Each]) -> list[Each]:
    """Order them: those that respond, the fit ones, with the fewest connections; of equals, who waited longest."""
    return sorted(candidates, key=lambda each: (each.stalled, not each.fit, each.open_connections, each.turn))


def to_move(open_connections: int, total: int, workers: int) -> int:
    """How many connections a worker process has above an even share, when a new one can take some over."""
    share = -(-total // workers)
    return max(0, open_connections - share)
