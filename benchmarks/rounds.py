"""One round of a workload: each server in turn is started, loaded and stopped; one that fails stops no other."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.labels import expected_label, label_in
from benchmarks.load import LoadFailed, Outcome, Pattern, load
from benchmarks.results import Absence, Point, Results, Start
from benchmarks.servers import LIMITS, VARIANTS, Running, Server, ServerFailed, running
from benchmarks.workloads import Place, Workload

WARMUP_S = 2.0
SHARES = (0.5, 0.8, 1.2, 2.0)
DEADLINE_MS = 500.0
# A Poisson process brings more than its mean, at times.
SPARE = 1.2


@dataclass(frozen=True)
class Plan:
    """How each server is loaded.

    Attributes:
        connections: Of the closed loops, one after the other.
        seconds: Of each load.
        open_loop: Whether open loops follow, at shares of what the closed ones reached.
        most_connections: Of an open loop.
    """

    connections: Sequence[int]
    seconds: float
    open_loop: bool
    most_connections: int

    def open(self, rate: float) -> Pattern:
        """An open loop whose last request still finds a connection if none was answered, where so many may be."""
        enough = math.ceil(SPARE * rate * (WARMUP_S + self.seconds))
        return Pattern(
            connections=min(enough, self.most_connections),
            seconds=self.seconds,
            warmup_s=WARMUP_S,
            rate=rate,
            deadline_ms=DEADLINE_MS,
        )


@contextmanager
def noting(
    results: Results, server: Server, workload: str | None = None, round_: int | None = None
) -> Iterator[None]:
    """Note a failure of the server within, and go on after it."""
    try:
        yield
    except (ServerFailed, LoadFailed) as failure:
        log = failure.log if isinstance(failure, ServerFailed) else ""
        absence = Absence(workload=workload, server=server.name, round=round_, why=str(failure), log=log)
        results.absences.append(absence)
        print(f"{server.name} failed: {absence.why}\n{log}", file=sys.stderr)


@dataclass(frozen=True)
class Round:
    """A workload, its model in a place, and where what is found goes."""

    results: Results
    number: int
    workload: Workload
    place: Place
    plan: Plan

    def measure(self, servers: Sequence[Server]) -> None:
        """Load each of them that the workload is for."""
        label = expected_label(self.place.folder, self.workload.requests()[0])
        for server in servers:
            if not server.takes(self.workload.inputs) or self._is_another_variant(server):
                continue
            print(f"round {self.number + 1}: {self.workload.name}, {server.name}", file=sys.stderr)
            with noting(self.results, server, self.workload.name, self.number):
                self._measure(server, label)

    def _is_another_variant(self, server: Server) -> bool:
        return server in VARIANTS and server.name not in self.workload.also

    def _measure(self, server: Server, label: str) -> None:
        probe = server.request(self.workload.requests()[0], self.workload.content_type)
        with running(server, self.place, len(os.sched_getaffinity(0)), probe) as process:
            if server not in LIMITS:
                _check_label(process, label)
            closed = self._load_closed(process)
            if self.plan.open_loop and server not in LIMITS:
                self._load_open(process, max(outcome.per_s for outcome in closed))
            start = Start(
                workload=self.workload.name,
                server=server.name,
                round=self.number,
                ready_s=process.ready_s,
                memory=process.memory_mb(),
            )
            self.results.starts.append(start)

    def _load_closed(self, process: Running) -> list[Outcome]:
        patterns = (
            Pattern(connections=count, seconds=self.plan.seconds, warmup_s=WARMUP_S)
            for count in self.plan.connections
        )
        return [self._load(process, pattern) for pattern in patterns]

    def _load_open(self, process: Running, capacity_per_s: float) -> None:
        """Load at shares of the most that the server itself reached in a closed loop, in this very round."""
        if not capacity_per_s:
            raise process.failure("it answered nothing well, so that there is no capacity to take shares of")
        for share in SHARES:
            self._load(process, self.plan.open(share * capacity_per_s), share)

    def _load(self, process: Running, pattern: Pattern, share: float | None = None) -> Outcome:
        server, content_type = process.server, self.workload.content_type
        requests = [
            server.request(inputs, content_type, pattern.deadline_ms) for inputs in self.workload.requests()
        ]
        outcome = load(process.port, requests, pattern)
        process.check_alive()
        point = Point(
            workload=self.workload.name,
            server=server.name,
            round=self.number,
            pattern=pattern,
            share=share,
            outcome=outcome,
        )
        self.results.points.append(point)
        return outcome


def _check_label(process: Running, expected: str) -> None:
    if label_in(process.answer) != expected:
        raise process.failure(f"it should answer {expected!r}, and answers {process.answer[:300]}")
