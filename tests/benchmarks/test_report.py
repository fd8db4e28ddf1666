"""The tables that a run's results become."""

from datetime import UTC, datetime

import pytest
import torch

from benchmarks.load import Latencies, Outcome, Pattern
from benchmarks.report import markdown
from benchmarks.results import Point, Results
from training.machine import this_machine


@pytest.fixture
def results() -> Results:
    return Results(
        machine=this_machine(torch.device("cpu")),
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        versions={},
    )


def outcome(
    count: int, p50: float, p99: float, refused: int = 0, late_ms: float | None = None, **more: int
) -> Outcome:
    told = {"begun": count, "in_time": count, "broken": 0, "unanswered": 0, "connects": 1, "advised": 0, **more}
    return Outcome(
        seconds=2,
        statuses={200: count, 503: refused},
        accepted_ms=Latencies(count=count, p50=p50, p99=p99),
        refused_ms=Latencies(count=refused, p99=7 if refused else None),
        begun_late_ms=Latencies(count=0, p99=late_ms),
        samples={},
        **told,
    )


def point(server: str, round_: int, connections: int, found: Outcome, share: float | None = None) -> Point:
    rate = None if share is None else 100.0
    pattern = Pattern(connections=connections, seconds=2, rate=rate)
    return Point(workload="tiny", server=server, round=round_, pattern=pattern, share=share, outcome=found)


def test_a_closed_loop_is_tabulated_by_connections(results: Results) -> None:
    results.points = [
        point("a", 0, 1, outcome(2000, 0.5, 1)),
        point("a", 0, 8, outcome(4000, 2, 4, broken=3)),
        point("a", 1, 8, outcome(6000, 4, 6)),
        point("b", 0, 1, outcome(20, 50, 60)),
    ]

    assert (
        "Closed loop: requests a second (p50/p99 in ms).\n\n"
        "| server | 1 connections | 8 connections |\n"
        "| --- | --- | --- |\n"
        "| a | 1,000 (0.5/1) | 2,500 (3/5), 3 failed |\n"
        "| b | 10 (50/60) | - (-/-) |\n"
    ) in markdown(results)


def test_an_open_loop_is_tabulated_by_shares_of_capacity(results: Results) -> None:
    results.points = [
        point("a", 0, 1, outcome(2000, 0.5, 1)),
        point("b", 0, 1, outcome(2000, 0.5, 1)),
        point("b", 0, 2000, outcome(160, 3, 9, in_time=150, begun=170, unanswered=10), share=0.8),
        point("b", 0, 2000, outcome(160, 3, 9, refused=140, late_ms=60.0, begun=300), share=2.0),
    ]

    assert (
        "| server | 80% of capacity | 200% of capacity |\n"
        "| --- | --- | --- |\n"
        "| b | 75 of 85 (9), 10 never answered | 80 of 150 (9), 70 refused (7), begun up to 60 ms late |\n"
    ) in markdown(results)
