"""What a run of the benchmark found: every point as it was measured, and medians of rounds with their ratios."""

import statistics
from collections.abc import Callable, Iterable
from datetime import datetime

from pydantic import BaseModel

from benchmarks.load import Outcome, Pattern
from benchmarks.servers import Memory
from training.machine import Machine


class Point(BaseModel):
    """One load on one server.

    Attributes:
        round: Servers take turns within a round, so that ratios are of the same minutes.
        model: Of a mix, whose requests alone are counted; None is those of all.
        share: Of the server's own capacity, of an open loop.
    """

    workload: str
    server: str
    round: int
    pattern: Pattern
    model: str | None = None
    share: float | None = None
    outcome: Outcome


class Start(BaseModel):
    """A server's start, and its memory after the loads of a round."""

    workload: str
    server: str
    round: int
    ready_s: float
    memory: Memory


class Absence(BaseModel):
    """Why a run has no figures of a server, or not all of them.

    Attributes:
        workload: Where it is missed; None is everywhere.
        round: Likewise.
        failed: Or else it is not made for it.
        log: The last lines of what the server said.
    """

    workload: str | None
    server: str
    round: int | None
    why: str
    failed: bool = True
    log: str = ""


class Limit(BaseModel):
    """What the model and the decoding alone reach, items a second, by the way they are run.

    Attributes:
        model: Which, of a mix.
    """

    workload: str
    round: int
    model: str | None = None
    model_per_s: dict[str, dict[str, float]]
    decode_per_s: dict[str, float]

    def combined_per_s(self, form: str) -> float:
        """What a form of the model and decoding leave of the processor, if nothing else took any of it."""
        return 1 / (1 / max(self.model_per_s[form].values()) + 1 / max(self.decode_per_s.values()))


class Results(BaseModel):
    """Everything of one run."""

    machine: Machine
    started_at: datetime
    versions: dict[str, dict[str, str]] = {}
    points: list[Point] = []
    starts: list[Start] = []
    limits: list[Limit] = []
    absences: list[Absence] = []

    def closed(self, workload: str, server: str, connections: int, model: str | None = None) -> list[Outcome]:
        """Outcomes of a closed loop, a round each; of a mix, of all models or one."""
        return [
            point.outcome
            for point in self.points
            if (point.workload, point.server, point.pattern.connections) == (workload, server, connections)
            and (point.model, point.pattern.rate) == (model, None)
        ]

    def open(self, workload: str, server: str, share: float) -> list[Outcome]:
        """Outcomes of an open loop at a share of the server's capacity, a round each."""
        return [
            point.outcome
            for point in self.points
            if (point.workload, point.server, point.share) == (workload, server, share)
        ]

    def absent(self, workload: str) -> list[Absence]:
        """Why servers have no figures of a workload, or not all."""
        return [absence for absence in self.absences if absence.workload in (None, workload)]

    def median(self, outcomes: Iterable[Outcome], figure: Callable[[Outcome], float | None]) -> float | None:
        """The median of a figure over rounds; None where there is none."""
        found = [value for value in map(figure, outcomes) if value is not None]
        return statistics.median(found) if found else None
