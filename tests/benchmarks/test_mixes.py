"""Models that one server has at the same time."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load import Latencies, Outcome, together
from benchmarks.places import Place, lay_out
from benchmarks.report import markdown
from benchmarks.results import Limit, Results
from benchmarks.rounds import Plan, Round
from benchmarks.servers import Server
from benchmarks.workloads import WORKLOADS, Mix, Workload
from tests.benchmarks.test_failures import answering
from training.machine import Machine

MODELS = ("small", "large")
MIX = Mix("both", [Workload(model, model, (), "text/plain", lambda: [b"body"]) for model in MODELS])
PLAN = Plan(connections=(1, 4), seconds=0.3, open_loop=True, most_connections=8)


@pytest.fixture
def round_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Round:
    monkeypatch.setattr("benchmarks.rounds.WARMUP_S", 0.0)
    monkeypatch.setattr("benchmarks.streams.expected_label", lambda *_: "right")
    machine = Machine(cpu="a", cores=2, threads=2, device="cpu", torch="2", python="3", commit=None)
    results = Results.model_validate({"machine": machine, "started_at": "2026-01-02T00:00:00Z"})
    part = Place(tmp_path, tmp_path)
    return Round(results, 0, MIX, Place(tmp_path, tmp_path, (part, part)), PLAN)


def test_connections_are_shared_and_each_model_is_counted(round_: Round) -> None:
    round_.measure([replace(answering("a"), model_path="/{model}")])

    # One connection cannot be shared; and there is no open loop.
    assert {(point.pattern.connections, point.pattern.rate) for point in round_.results.points} == {(4, None)}
    found = {point.model: point.outcome for point in round_.results.points}
    assert set(found) == {*MODELS, None}
    small, large, whole = found["small"], found["large"], found[None]
    assert (small.connects, large.connects, whole.connects) == (2, 2, 4)
    assert whole.per_s == pytest.approx(small.per_s + large.per_s)


def test_each_model_is_tabulated(round_: Round) -> None:
    round_.measure([replace(answering("a"), model_path="/{model}")])
    way = {"way": 8.0}
    round_.results.limits = [
        Limit(workload="both", round=0, model=model, model_per_s={"fp32": way}, decode_per_s=way)
        for model in MODELS
    ]

    tables = markdown(round_.results)

    assert "Closed loop, connections shared evenly among small and large: requests a second in all." in tables
    assert "Those to small: requests a second (p50/p99 in ms)." in tables
    assert "Those to large: requests a second (p50/p99 in ms)." in tables
    assert "| small, fp32 | 8 | way | 8 | 4 |\n| large, fp32 | 8 | way | 8 | 4 |" in tables


def test_every_model_must_be_answered_right(round_: Round) -> None:
    round_.measure([replace(answering("a", label="wrong"), model_path="/{model}")])

    (absence,) = round_.results.absences
    assert absence.failed
    assert absence.why.startswith("it should answer 'right'")


def test_who_has_only_one_model_is_told_once_and_has_not_failed(round_: Round) -> None:
    for _ in range(2):
        round_.measure([Server("a", ())])

    (absence,) = round_.results.absences
    assert (absence.failed, absence.why) == (False, "it serves one model")
    assert "| a (cannot) |" in markdown(round_.results)
    assert "a is not made for it: it serves one model" in markdown(round_.results)


def test_what_came_of_several_streams_adds_up() -> None:
    def outcome(good: int, bad: int) -> Outcome:
        return Outcome(
            seconds=2,
            begun=good + bad,
            in_time=good,
            broken=1,
            unanswered=0,
            connects=2,
            advised=1,
            statuses={200: good, 500: bad},
            accepted_ms=Latencies(count=good, p50=1),
            refused_ms=Latencies(count=0),
            begun_late_ms=Latencies(count=0),
            samples={},
        )

    whole = together([outcome(10, 0), outcome(20, 3)])

    assert (whole.statuses, whole.failed) == ({200: 30, 500: 3}, 3)
    assert (whole.begun, whole.in_time, whole.broken, whole.connects, whole.advised) == (33, 30, 2, 4, 2)
    assert (whole.per_s, whole.accepted_ms.p50) == (15, None)


def test_models_are_laid_out_together_as_they_are_alone(tmp_path: Path) -> None:
    tiny = WORKLOADS["tiny"]
    assert isinstance(tiny, Workload)
    publish = [word.replace("tiny", "other") if word == "tiny" else word for word in tiny.publish]
    mix = Mix("mix", (tiny, replace(tiny, model="other", publish=publish)))

    place = lay_out(mix, tmp_path)

    assert sorted(path.name for path in place.models_dir.iterdir()) == ["other", "tiny"]
    for name, part in zip(("tiny", "other"), place.each, strict=True):
        for file in ("task.json", "labels.json", "model.ts.pt"):
            assert (place.folder / name / file).read_bytes() == (part.folder / file).read_bytes()


def test_the_mix_is_of_workloads_that_are_measured_alone_too() -> None:
    mix = WORKLOADS["mix"]

    assert isinstance(mix, Mix)
    assert all(WORKLOADS[part.name] is part for part in mix.parts)
