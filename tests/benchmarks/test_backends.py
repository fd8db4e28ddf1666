"""The comparison of backends, without measuring anything: its rows, its reasons, and what it refuses."""

from pathlib import Path

import pytest

from benchmarks import backends
from benchmarks.backends import Failed, Row, ask, compare, markdown, options_of, reason
from benchmarks.candidates import CANDIDATES, Made, Measured
from benchmarks.networks import NETWORKS

MADE = Made(make_s=1.25, size_mb=46.8, versions={"openvino": "1.2"})
TRACEBACK = """Traceback (most recent call last):
  File "here.py", line 1, in <module>
    work()
"""


def measured(images_per_s: float = 10, cores_used: float = 1) -> Measured:
    return Measured(
        load_s=0.5,
        images_per_s={1: images_per_s, 8: 2 * images_per_s, 32: 30 * images_per_s},
        largest_difference=0.026,
        largest_logit=5.88,
        cores_used=cores_used,
    )


def answer(part: str, name: str, folder: Path, threads: int | None = None) -> str:
    return (MADE if part == "make" else measured()).model_dump_json()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_cores", lambda: 2)


def cells(table: str, name: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_the_medians_of_the_rounds_and_the_largest_difference() -> None:
    one = [measured(10), measured(12), measured(90)]
    found = markdown([Row("a", MADE, {1: one, 2: [measured(20, cores_used=1.9)]})])
    assert cells(found, "a") == [
        "a",
        "12 / 24 / 360",
        "20 / 40 / 600",
        "0.026",
        "1.2",
        "0.50",
        "46.8",
        "1.00/1.90",
    ]
    assert "The largest logit is 5.88." in found
    assert "openvino 1.2." in found


def test_candidates_take_turns_on_one_thread_and_on_all(tmp_path: Path) -> None:
    asked = []

    def note(part: str, name: str, folder: Path, threads: int | None = None) -> str:
        asked.append((part, name, threads))
        return answer(part, name, folder, threads)

    compare(["a", "b"], tmp_path, rounds=2, ask=note)
    turn = [("measure", name, threads) for name in "ab" for threads in (1, 2)]
    assert asked == [("make", "a", None), ("make", "b", None), *turn, *turn]


@pytest.mark.parametrize("failing", ["make", "measure"])
def test_a_failing_candidate_becomes_a_row_that_says_why(tmp_path: Path, failing: str) -> None:
    asked = []

    def fail_for_b(part: str, name: str, folder: Path, threads: int | None = None) -> str:
        if (part, name) == (failing, "b"):
            asked.append(part)
            raise Failed("no compiler")
        return answer(part, name, folder, threads)

    found = markdown(compare(["a", "b"], tmp_path, rounds=3, ask=fail_for_b))
    assert cells(found, "a")[1] == "10 / 20 / 300"
    assert cells(found, "b") == ["b", "failed: no compiler", *[""] * (len(backends.HEAD) - 2)]
    assert asked == [failing]


def test_one_thread_that_uses_more_of_the_processor_fails(tmp_path: Path) -> None:
    def use_both(part: str, name: str, folder: Path, threads: int | None = None) -> str:
        return answer(part, name, folder) if part == "make" else measured(cores_used=1.9).model_dump_json()

    (row,) = compare(["a"], tmp_path, rounds=1, ask=use_both)
    assert row.failure == "on one thread it used 1.90 cores"


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"FileNotFoundError: .*network\.pt"):
        ask("make", "torchscript", tmp_path)


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (f"{TRACEBACK}ValueError: not a | b\nand more\n", 1, "ValueError: not a / b"),
        (f"{TRACEBACK}OSError: first\n\nand then:\n\n{TRACEBACK}KeyError: 'x'\n", 1, "KeyError: 'x'"),
        (f"{TRACEBACK}RuntimeError: \nno such method\n", 1, "RuntimeError: no such method"),
        ("a warning\nwhat it said last\n", 2, "what it said last"),
        ("", 3, "ended with code 3"),
        ("a warning\n", -11, "ended by signal 11"),
    ],
)
def test_a_reason_is_one_line(said: str, code: int, expected: str) -> None:
    assert reason(said, code) == expected


@pytest.mark.parametrize("words", [["resnet19"], ["resnet18", "--candidates", "torchscript,x"], ["--rounds", "0"]])
def test_what_is_unknown_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(words)
    assert "error: " in capsys.readouterr().err


def test_all_are_compared_unless_some_are_named() -> None:
    assert options_of([]).networks == list(NETWORKS)
    assert options_of([]).candidates == list(CANDIDATES)
    some = options_of(["resnet50", "--candidates", "torchscript,aoti-bf16"])
    assert (some.networks, some.candidates) == (["resnet50"], ["torchscript", "aoti-bf16"])


def test_environments_of_their_own_are_listed_exactly() -> None:
    lists = {each.requirements for each in CANDIDATES.values() if each.requirements}
    assert lists
    assert all("==" in line for file in lists for line in file.read_text().splitlines())
