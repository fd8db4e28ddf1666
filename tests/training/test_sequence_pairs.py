import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.datasets.keyed import trimmed
from training.datasets.reading import Skipped
from training.datasets.sequence_pairs import SequencePair, SequencePairs, load
from training.errors import DataInvalid

PLENTY = [(f"source {number}", f"target {number}") for number in range(60)]


def read(tmp_path: Path, rows: Iterable[tuple[str, ...]], split_column: str | None = None) -> SequencePairs:
    file = tmp_path / "pairs.jsonl"
    names = ("source", "target", "split")
    file.write_text("\n".join(json.dumps(dict(zip(names, row, strict=False))) for row in rows), encoding="utf-8")
    return load(file, "source", "target", split_column)


def everything(pairs: SequencePairs) -> list[SequencePair]:
    return [*pairs.train, *pairs.validation, *pairs.test]


def test_every_pair_comes_back_once(tmp_path: Path) -> None:
    pairs = read(tmp_path, PLENTY)
    assert sorted(everything(pairs)) == sorted(SequencePair(source, (target,)) for source, target in PLENTY)
    assert min(len(pairs.train), len(pairs.validation), len(pairs.test)) > 0
    assert pairs.sha256 == hashlib.sha256((tmp_path / "pairs.jsonl").read_bytes()).hexdigest()
    assert pairs.reading.lines() == ["60 examples read, 0 skipped"]


@pytest.mark.parametrize("number", range(0, 60, 5))
def test_targets_of_one_source_are_variants_in_their_order(tmp_path: Path, number: int) -> None:
    variants = [(f" source  {number}", "z variant"), (f"source {number}\n", "a variant")]
    pairs = read(tmp_path, [*PLENTY, *variants])
    assert SequencePair(f"source {number}", (f"target {number}", "z variant", "a variant")) in everything(pairs)
    assert len(everything(pairs)) == 60
    assert (pairs.reading.duplicates, pairs.reading.conflicting) == (0, 0)


def test_the_same_pair_twice_is_dropped(tmp_path: Path) -> None:
    pairs = read(tmp_path, [*PLENTY, ("caf\u00e9", "coffee"), ("cafe\u0301 ", " coffee"), PLENTY[0]])
    assert pairs.reading.duplicates == 2
    assert SequencePair("caf\u00e9", ("coffee",)) in everything(pairs)


def test_targets_are_kept_as_a_model_writes_them(tmp_path: Path) -> None:
    pairs = read(tmp_path, [*PLENTY, ("cafe", " un  cafe\u0301\n")])
    assert SequencePair("cafe", ("un caf\u00e9",)) in everything(pairs)


def test_targets_keep_their_line_breaks_where_a_model_can_write_them(tmp_path: Path) -> None:
    code = "def f():\n    return 1"
    read(tmp_path, [*PLENTY, ("one", f" {code}\n")])
    kept = load(tmp_path / "pairs.jsonl", "source", "target", written_as=trimmed)
    assert SequencePair("one", (code,)) in everything(kept)
    assert not kept.reading.notes
    flat = load(tmp_path / "pairs.jsonl", "source", "target")
    assert SequencePair("one", ("def f(): return 1",)) in everything(flat)
    assert flat.reading.notes == ("1 targets have line breaks or several spaces in a row, which become one space",)


def test_sources_that_the_model_cannot_tell_apart_are_one(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("source,target\nPolish,polnisch\npolish,polieren\na,b\nc,d\ne,f\n")
    pairs = load(tmp_path / "pairs.csv", "source", "target", seen_as=str.casefold)
    assert SequencePair("Polish", ("polnisch", "polieren")) in everything(pairs)


def test_three_sources_are_enough(tmp_path: Path) -> None:
    for start in range(0, 90, 3):
        pairs = read(tmp_path, [(f"source {number}", "target") for number in range(start, start + 3)])
        assert [len(part) for part in (pairs.train, pairs.validation, pairs.test)] == [1, 1, 1]


def test_the_case_of_a_source_counts(tmp_path: Path) -> None:
    pairs = everything(read(tmp_path, [*PLENTY, ("polish", "polieren"), ("Polish", "polnisch")]))
    assert {SequencePair("polish", ("polieren",)), SequencePair("Polish", ("polnisch",))} < set(pairs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.tuples(st.text("ab ", min_size=1), st.text("xy", min_size=1))))
def test_no_source_is_in_two_parts_and_no_target_is_lost(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    pairs = everything(read(tmp_path, [*PLENTY, *rows]))
    sources = [" ".join(pair.source.split()) for pair in pairs]
    assert len(sources) == len(set(sources))
    found = {(" ".join(pair.source.split()), target) for pair in pairs for target in pair.targets}
    assert found == {(" ".join(source.split()), target) for source, target in [*PLENTY, *rows] if source.strip()}


def test_given_parts_are_kept_and_sources_under_test_leave_train(tmp_path: Path) -> None:
    tests = [("source 0", "another target", "test"), ("only tested", "t", "test")]
    pairs = read(tmp_path, [*((*row, "train") for row in PLENTY), *tests], "split")
    assert pairs.test == [SequencePair("source 0", ("another target",)), SequencePair("only tested", ("t",))]
    assert len(pairs.train) + len(pairs.validation) == 59
    assert pairs.reading.straddling == 1


def test_rows_without_a_source_or_a_target_are_skipped_and_told(tmp_path: Path) -> None:
    pairs = read(tmp_path, [("", "t"), ("s", " "), ("s",), *PLENTY])
    assert pairs.reading.skipped == (
        Skipped("line 1", "'source' is empty"),
        Skipped("line 2", "'target' is empty"),
        Skipped("line 3", "'target' is empty"),
    )


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_part_stops(tmp_path: Path, part: str) -> None:
    with pytest.raises(DataInvalid, match="none of the 1 examples falls in"):
        read(tmp_path, [("source 0", "target", part)], "split")


def test_a_column_that_is_not_there_stops(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"no column 'target'; its columns are 'source'"):
        read(tmp_path, [("only",)])
