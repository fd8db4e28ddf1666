"""One round of a workload: each server in turn is started, loaded and stopped; one that fails stops no other."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.labels import label_in
from benchmarks.load import LoadFailed, Outcome, Pattern, load_together, together
from benchmarks.places import Place
from benchmarks.results import Absence, Point, Results, Start
from benchmarks.servers import LIMITS, VARIANTS, Running, Server, ServerFailed, running
from benchmarks.streams import Stream, streams_of
from benchmarks.workloads import Mix, Workload

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
    """A workload, its models in a place, and where what is found goes."""

    results: Results
    number: int
    workload: Workload | Mix
    place: Place
    plan: Plan

    def measure(self, servers: Sequence[Server]) -> None:
        """Load each of them that the workload is for."""
        streams = streams_of(self.workload, self.place)
        for server in servers:
            if server in VARIANTS and server.name not in self.workload.also:
                continue
            if why := server.unfit(self.workload.inputs, len(streams)):
                self._note_unfit(server, why)
                continue
            print(f"round {self.number + 1}: {self.workload.name}, {server.name}", file=sys.stderr)
            with noting(self.results, server, self.workload.name, self.number):
                self._measure(server, streams)

    def _note_unfit(self, server: Server, why: str) -> None:
        absence = Absence(workload=self.workload.name, server=server.name, round=None, why=why, failed=False)
        # It is so in every round.
        if absence not in self.results.absences:
            self.results.absences.append(absence)

    def _measure(self, server: Server, streams: Sequence[Stream]) -> None:
        probes = [stream.probe(server) for stream in streams]
        with running(server, self.place, len(os.sched_getaffinity(0)), probes) as process:
            if server not in LIMITS:
                _check_labels(process, streams)
            closed = self._load_closed(process, streams)
            # How an open loop's requests were to be split among several models is anyone's guess.
            if self.plan.open_loop and server not in LIMITS and len(streams) == 1:
                self._load_open(process, streams, max(outcome.per_s for outcome in closed))
            start = Start(
                workload=self.workload.name,
                server=server.name,
                round=self.number,
                ready_s=process.ready_s,
                memory=process.memory_mb(),
            )
            self.results.starts.append(start)

    def _load_closed(self, process: Running, streams: Sequence[Stream]) -> list[Outcome]:
        patterns = (
            Pattern(connections=count, seconds=self.plan.seconds, warmup_s=WARMUP_S)
            for count in self.plan.connections
            if count >= len(streams)
        )
        return [self._load(process, streams, pattern) for pattern in patterns]

    def _load_open(self, process: Running, streams: Sequence[Stream], capacity_per_s: float) -> None:
        """Load at shares of the most that the server itself reached in a closed loop, in this very round."""
        if not capacity_per_s:
            raise process.failure("it answered nothing well, so that there is no capacity to take shares of")
        for share in SHARES:
            self._load(process, streams, self.plan.open(share * capacity_per_s), share)

    def _load(
        self, process: Running, streams: Sequence[Stream], pattern: Pattern, share: float | None = None
    ) -> Outcome:
        asked = [stream.requests(process.server, pattern.deadline_ms) for stream in streams]
        outcomes = load_together(process.port, asked, pattern)
        process.check_alive()
        whole = together(outcomes)
        found = {stream.model: outcome for stream, outcome in zip(streams, outcomes, strict=True)} | {None: whole}
        self.results.points += [
            Point(
                workload=self.workload.name,
                server=process.server.name,
                round=self.number,
                pattern=pattern,
                model=model,
                share=share,
                outcome=outcome,
            )
            for model, outcome in found.items()
        ]
        return whole


def _check_labels(process: Running, streams: Sequence[Stream]) -> None:
    for answer, stream in zip(process.answers, streams, strict=True):
        if label_in(answer) != stream.label:
            raise process.failure(f"it should answer {stream.label!r}, and answers {answer[:300]}")
