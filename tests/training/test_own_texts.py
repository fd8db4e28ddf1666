"""Texts of a user's own, from a table to a task."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.training.small import silent
from training.commands import ReviewOptions, TextTableOptions
from training.datasets import movie_reviews
from training.errors import DataInvalid, OptionInvalid
from training.progress import Progress
from training.recipes import reviews
from training.recipes.own_texts import prepare

PLENTY = [(f"{label} number {number}", label) for number in range(100) for label in ("spam", "ham")]


def written(tmp_path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with (tmp_path / "texts.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return tmp_path / "texts.csv"


def options(data: Path, **changes: Any) -> TextTableOptions:
    return TextTableOptions(**{"name": "own", "data": data, "arch": "bag"} | changes)


def said(given: TextTableOptions) -> str:
    stream = io.StringIO()
    prepare(given, Progress(stream))
    return stream.getvalue()


def test_the_fractions_are_the_users(tmp_path: Path) -> None:
    data = written(tmp_path, PLENTY)
    small, _ = prepare(options(data, test_fraction=0.1), silent())
    large, _ = prepare(options(data, test_fraction=0.5), silent())
    assert set(small.dataset.test) < set(large.dataset.test)


def test_a_class_of_which_all_texts_are_too_long_stops(tmp_path: Path) -> None:
    data = written(tmp_path, [*PLENTY, *((f"a long text of {number} words", "eggs") for number in range(20))])
    told = r"--max-tokens 5 leaves no train example of 'eggs' \(0 in all\); raise it, or give --truncate"
    with pytest.raises(DataInvalid, match=told):
        prepare(options(data, max_tokens=5), silent())
    assert prepare(options(data, max_tokens=5, truncate=True), silent())[0].labels == ("eggs", "ham", "spam")
    with pytest.raises(DataInvalid, match="hardly any text has at most 4 tokens; raise --max-tokens"):
        prepare(options(data, max_tokens=4), silent())


def test_a_limit_that_leaves_nothing_of_a_class_stops(tmp_path: Path) -> None:
    rare = [(f"rare {number}", f"class {number // 3}") for number in range(240)]
    with pytest.raises(DataInvalid, match=r"--limit 64 leaves no train example of 'class \d+' .*; raise it"):
        prepare(options(written(tmp_path, [*PLENTY, *rare]), limit=64), silent())
    task, _ = prepare(options(written(tmp_path, PLENTY), limit=64), silent())
    assert task.train_size == 64


@pytest.mark.parametrize("tokens", ["words", "bpe"])
def test_texts_of_which_most_words_are_new_are_told(tmp_path: Path, tokens: str) -> None:
    clauses = [(f"今天天气很好啊{chr(0x4E00 + number)}{label}", label) for number in range(60) for label in "好坏"]
    warned = "% of the validation tokens are unknown; --tokens bpe" in said(
        options(written(tmp_path, clauses), tokens=tokens)
    )
    assert warned == (tokens == "words")


def test_texts_of_known_words_are_not_warned_of(tmp_path: Path) -> None:
    texts = [
        (f"{label} is {'very ' * (number % 30)}good {number % 7}", label)
        for number, (_, label) in enumerate(PLENTY)
    ]
    assert "warning" not in said(options(written(tmp_path, texts)))


def test_an_unknown_architecture_is_told_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionInvalid, match="--arch: no 'bagg'; there are bag, lstm, gru"):
        prepare(options(tmp_path / "nowhere.csv", arch="bagg"), silent())
    monkeypatch.setattr(movie_reviews, "load", lambda *_: pytest.fail("fetched"))
    with pytest.raises(OptionInvalid, match="--arch: no 'bagg'"):
        reviews.prepare(ReviewOptions(arch="bagg"), silent())
