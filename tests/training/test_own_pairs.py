"""Pairs of a user's own, from a table to a task."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.training.small import silent
from training.commands import PairTableOptions, PronounceOptions
from training.datasets import cmudict
from training.datasets.sequence_pairs import SequencePair
from training.errors import DataInvalid, OptionInvalid
from training.recipes import pronounce
from training.recipes.own_pairs import prepare
from training.tasks.sequences import TextToText

PLENTY = [(f"source {number}", f"target {number}") for number in range(100)]


def written(tmp_path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("source", "target"), *rows])
    return tmp_path / "pairs.csv"


def options(data: Path, **changes: Any) -> PairTableOptions:
    small = {"dim": 8, "hidden_size": 8, "layers": 1, "heads": 2, "target_tokens": "words"}
    return PairTableOptions(**{"name": "own", "data": data} | small | changes)


def task_of(tmp_path: Path, rows: Iterable[tuple[str, str]], **changes: Any) -> TextToText:
    return prepare(options(written(tmp_path, rows), **changes), silent())[0]


def test_the_fractions_are_the_users(tmp_path: Path) -> None:
    small = task_of(tmp_path, PLENTY, test_fraction=0.1)
    large = task_of(tmp_path, PLENTY, test_fraction=0.5)
    assert set(small.dataset.test) < set(large.dataset.test)


@pytest.mark.parametrize(("tokens", "kept"), [("bpe", "a\n  b"), ("chars", "a\n  b"), ("words", "a b")])
def test_a_target_is_what_its_tokens_can_write(tmp_path: Path, tokens: str, kept: str) -> None:
    task = task_of(tmp_path, [(source, "a\n  b") for source, _ in PLENTY], target_tokens=tokens)
    assert {pair.targets for pair in task.dataset.train} == {(kept,)}
    written_ids = task._writer.encode_all([kept])[0]
    assert task._writer.decode(written_ids[1:]) == kept


def test_few_pairs_are_passed_over_often(tmp_path: Path) -> None:
    task, given = prepare(options(written(tmp_path, PLENTY)), silent())
    assert given.batch_size == 8
    assert given.epochs == math.ceil(1000 / (task.train_size // 8))


def test_targets_too_long_to_be_written_are_left_out_of_train_alone(tmp_path: Path) -> None:
    rows = [(source, f"{target} {'very ' * 10}long") for source, target in PLENTY[:60]]
    whole = task_of(tmp_path, [*rows, *PLENTY[60:]])
    cut = task_of(tmp_path, [*rows, *PLENTY[60:]], max_steps=5)
    assert cut.dataset.validation == whole.dataset.validation
    assert cut.dataset.test == whole.dataset.test
    assert any("very" in pair.targets[0] for pair in cut.dataset.test)
    kept = [pair for pair in whole.dataset.train if "very" not in pair.targets[0]]
    assert 0 < len(kept) < len(whole.dataset.train)
    assert cut.dataset.train == kept


def test_of_several_targets_those_short_enough_are_trained_on(tmp_path: Path) -> None:
    rows = [*PLENTY, *((source, f"{target} {'very ' * 10}long") for source, target in PLENTY)]
    task = task_of(tmp_path, rows, max_steps=5)
    assert {len(pair.targets) for pair in task.dataset.train} == {1}
    assert {len(pair.targets) for pair in task.dataset.test} == {2}


def test_sources_too_long_to_be_read_are_left_out_of_every_part(tmp_path: Path) -> None:
    rows = [(f"{source} {'very ' * 10}long", target) for source, target in PLENTY[:60]]
    task = task_of(tmp_path, [*rows, *PLENTY[60:]], tokens="words", max_tokens=5)
    parts = [*task.dataset.train, *task.dataset.validation, *task.dataset.test]
    assert sorted(parts) == sorted(SequencePair(source, (target,)) for source, target in PLENTY[60:])
    with pytest.raises(DataInvalid, match="hardly any pair fits --max-tokens 4"):
        task_of(tmp_path, [(f"a {source} b", target) for source, target in PLENTY], tokens="words", max_tokens=4)


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ({}, False),
        ({"lowercase": True}, True),
        ({"lowercase": True, "tokens": "words"}, True),
        ({"tokens": "words"}, False),
    ],
)
def test_sources_that_are_read_alike_are_one(tmp_path: Path, given: dict[str, Any], joined: bool) -> None:
    task = task_of(tmp_path, [*PLENTY, ("Polish", "polnisch"), ("polish", "polieren")], **given)
    parts = [*task.dataset.train, *task.dataset.validation, *task.dataset.test]
    assert (SequencePair("Polish", ("polnisch", "polieren")) in parts) == joined
    spaced = task_of(tmp_path, [*PLENTY, ("film 3!", "a"), ("film 3 !", "b")], **given)
    parts = [*spaced.dataset.train, *spaced.dataset.validation, *spaced.dataset.test]
    assert (SequencePair("film 3!", ("a", "b")) in parts) == ("tokens" in given)


def test_an_unknown_architecture_is_told_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionInvalid, match="--arch: no 'lstm'; there are seq2seq"):
        prepare(options(tmp_path / "nowhere.csv", arch="lstm"), silent())
    monkeypatch.setattr(cmudict, "load", lambda: pytest.fail("fetched"))
    with pytest.raises(OptionInvalid, match="--arch: no 'lstm'"):
        pronounce.prepare(PronounceOptions(arch="lstm"), silent())
