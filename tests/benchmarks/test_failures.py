"""A server that fails is told, with the end of its log, and stops no other."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.places import Place
from benchmarks.results import Limit
from benchmarks.servers import LANTERN, SERVERS, Server, ServerFailed, running
from benchmarks.workloads import WORKLOADS, Workload

PROGRAM = Path(__file__).with_name("answering.py")
LIMIT = Limit(workload="one", round=0, model_per_s={"form": {"way": 1}}, decode_per_s={"way": 1})
BAD_REQUIREMENTS = "nothing-that-there-is @ file:///nonesuch.whl\n"


def answering(name: str, *options: str, label: str = "right") -> Server:
    return Server(name, (str(PROGRAM), "--port", "{port}", "--label", label, *options))


def saying(name: str, *lines: str) -> Server:
    return Server(name, ("-c", f"print({chr(10).join(lines)!r}); raise SystemExit(3)"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path)


@pytest.fixture
def _only_one_workload(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload("one", "one", (), "text/plain", lambda: [b"body"])
    monkeypatch.setitem(WORKLOADS, "one", workload)
    monkeypatch.setattr("benchmarks.__main__.lay_out", lambda *_, **__: place)
    monkeypatch.setattr("benchmarks.__main__.LIMITS", ())
    monkeypatch.setattr("benchmarks.__main__._limits", lambda *_: [LIMIT])
    monkeypatch.setattr("benchmarks.streams.expected_label", lambda *_: "right")
    monkeypatch.setattr("benchmarks.rounds.WARMUP_S", 0.0)


def measured(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *servers: Server, open_loop: bool = False
) -> tuple[dict[str, Any], str]:
    """Run the whole benchmark; return what it wrote as JSON and as Markdown."""
    for server in servers:
        monkeypatch.setitem(SERVERS, server.name, server)
    names = ",".join(server.name for server in servers)
    more = ("--open-loop" if open_loop else "--no-open-loop", "--output", str(folder))
    words = ["--servers", names, "--workloads", "one", "--connections", "32", "--rounds", "1", "--seconds", "0.2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words, *more])
    main()
    return json.loads((folder / "results.json").read_text()), (folder / "results.md").read_text()


@pytest.mark.usefixtures("_only_one_workload")
@pytest.mark.parametrize(
    ("bad", "why", "log"),
    [
        (saying("bad", "no such model"), "it ended before it answered (exit status 3)", "no such model"),
        (answering("bad", "--answers", "5"), "it ended while it was measured (exit status 7)", "a last word"),
        (answering("bad", label="wrong"), 'it should answer \'right\', and answers {"label": "wrong"}', ""),
        (Server("bad", (), lack=lambda: "it needs Java"), "it needs Java", ""),
    ],
    ids=["at its start", "in its run", "by its answer", "for want of something"],
)
def test_the_others_go_on(
    bad: Server, why: str, log: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, tables = measured(monkeypatch, tmp_path, bad, answering("good"))

    (absence,) = results["absences"]
    assert (absence["server"], absence["why"]) == ("bad", why)
    assert log in absence["log"]
    assert [point["server"] for point in results["points"]] == ["good"]
    assert "| bad (failed) | - (-/-) |" in tables
    assert f": {why}" in tables
    assert log in tables


@pytest.mark.usefixtures("_only_one_workload")
def test_what_cannot_be_installed_goes_with_the_installers_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(BAD_REQUIREMENTS)
    monkeypatch.setattr("benchmarks.environments.ENVIRONMENTS", tmp_path / "environments")

    results, tables = measured(
        monkeypatch, tmp_path, replace(answering("bad"), requirements=requirements), answering("good")
    )

    (absence,) = results["absences"]
    assert absence["why"].startswith("its environment cannot be made")
    assert "nonesuch.whl" in absence["log"]
    assert "bad failed: its environment cannot be made" in tables
    assert [point["server"] for point in results["points"]] == ["good"]


@pytest.mark.usefixtures("_only_one_workload")
def test_who_answers_nothing_well_has_no_capacity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results, _ = measured(
        monkeypatch, tmp_path, answering("bad", "--answers", "1", "--later", "500"), open_loop=True
    )

    (absence,) = results["absences"]
    assert "there is no capacity" in absence["why"]


@pytest.mark.usefixtures("_only_one_workload")
def test_lantern_must_not_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = replace(LANTERN, command=("-c", "raise SystemExit('no lantern')"))

    with pytest.raises(SystemExit) as ended:
        measured(monkeypatch, tmp_path, broken, answering("good"))

    assert ended.value.code == "failed: lantern"
    results = json.loads((tmp_path / "results.json").read_text())
    assert [point["server"] for point in results["points"]] == ["good"]
    assert "no lantern" in (tmp_path / "results.md").read_text()


def test_only_the_last_lines_are_told(place: Place) -> None:
    many = saying("many", *map(str, range(1000)), "x" * 5000)

    with pytest.raises(ServerFailed) as failed, running(many, place, 1, [b""]):
        pass

    assert failed.value.log.splitlines() == [*map(str, range(981, 1000)), "x" * 300]


def test_an_environment_that_broke_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone(*_arguments: object) -> Path:
        return tmp_path / "gone"

    monkeypatch.setattr("benchmarks.environments.python_of", gone)

    with pytest.raises(ServerFailed, match="its environment is broken"):
        replace(answering("bad"), requirements=tmp_path).install()
