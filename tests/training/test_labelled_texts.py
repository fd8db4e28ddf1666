import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.datasets.labelled_texts import LabelledText, LabelledTexts, load
from training.datasets.reading import Skipped
from training.errors import DataInvalid, DataUnavailable

# Enough of each class that every part gets some.
PLENTY = [(f"{label} number {number}", label) for number in range(40) for label in ("spam", "ham")]


def written(file: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def read(tmp_path: Path, rows: Iterable[tuple[str, ...]]) -> LabelledTexts:
    return load(written(tmp_path / "texts.csv", rows), "text", "label")


def read_split(tmp_path: Path, rows: Iterable[tuple[str, ...]]) -> LabelledTexts:
    file = written(tmp_path / "texts.csv", rows, ("text", "label", "split"))
    return load(file, "text", "label", "split")


def everything(data: LabelledTexts) -> list[LabelledText]:
    return [*data.train, *data.validation, *data.test]


def named(data: LabelledTexts, texts: list[LabelledText]) -> set[tuple[str, str]]:
    return {(text.text, data.labels[text.label]) for text in texts}


def same(text: str) -> str:
    """What two texts share that are the same."""
    caseless = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.findall(r"\w+|[^\w\s]+", unicodedata.normalize("NFC", caseless)))


def test_every_row_comes_back_once_with_its_label(tmp_path: Path) -> None:
    data = read(tmp_path, PLENTY)
    assert data.labels == ("ham", "spam")
    assert len(everything(data)) == len(PLENTY)
    assert named(data, everything(data)) == set(PLENTY)
    assert data.reading.lines() == ["80 examples read, 0 skipped"]
    assert data.sha256 == hashlib.sha256((tmp_path / "texts.csv").read_bytes()).hexdigest()
    assert [text for text, _ in data.train] == [text for text, _ in PLENTY if text in dict(data.train)]


def test_the_parts_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    first = read(tmp_path, PLENTY)
    second = read(tmp_path, PLENTY[::-1])
    assert set(first.train) == set(second.train)
    assert set(first.validation) == set(second.validation)
    assert set(first.test) == set(second.test)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.tuples(st.text("aAbß \u0301\u00e9e\n!'", min_size=1), st.sampled_from(["spam", "ham"]))))
def test_no_text_is_in_two_parts_and_none_is_lost(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    data = read(tmp_path, [*PLENTY, *rows])
    parts = [{same(text) for text, _ in part} for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    reading = data.reading
    assert len(everything(data)) == reading.rows - len(reading.skipped) - reading.duplicates
    assert reading.rows == len(PLENTY) + len(rows)
    assert all(skipped.reason == "'text' is empty" for skipped in reading.skipped)


@pytest.mark.parametrize("copy", ["spam number 0", "SPAM  Number\n0", " spam number 0\t", "\u017fpam number 0"])
def test_copies_that_differ_in_case_or_space_are_dropped(tmp_path: Path, copy: str) -> None:
    data = read(tmp_path, [*PLENTY, (copy, "spam")])
    assert named(data, everything(data)) == set(PLENTY)
    assert (data.reading.duplicates, data.reading.conflicting) == (1, 0)


def test_copies_that_differ_in_the_space_around_a_sign_are_dropped(tmp_path: Path) -> None:
    rows = [("film 3!", "spam"), ("Film 3 !", "spam"), ("film3!", "spam"), ("don't", "ham"), ("don ' t", "ham")]
    assert read(tmp_path, [*PLENTY, *rows]).reading.duplicates == 2


def test_texts_of_signs_alone_are_told_apart(tmp_path: Path) -> None:
    assert read(tmp_path, [*PLENTY, ("!", "spam"), ("?", "spam"), ("\u0301", "ham")]).reading.duplicates == 0


def test_copies_in_another_unicode_form_are_dropped(tmp_path: Path) -> None:
    data = read(tmp_path, [*PLENTY, ("caf\u00e9", "ham"), ("CAFE\u0301", "ham")])
    assert data.reading.duplicates == 1


@pytest.mark.parametrize("number", range(20))
def test_a_text_with_two_labels_stays_in_one_part(tmp_path: Path, number: int) -> None:
    data = read(tmp_path, [*PLENTY, (f"both {number}", "spam"), (f"Both {number}", "ham")])
    parts = [part for part in (data.train, data.validation, data.test) if f"both {number}" in dict(part)]
    assert len(parts) == 1
    assert f"Both {number}" in dict(parts[0])
    assert (data.reading.duplicates, data.reading.conflicting) == (0, 1)


def test_rows_without_a_text_or_a_label_are_skipped_and_told(tmp_path: Path) -> None:
    data = read(tmp_path, [("", "ham"), (" \n ", "ham"), ("text", " "), *PLENTY])
    assert data.reading.skipped == (
        Skipped("line 2", "'text' is empty"),
        Skipped("line 3", "'text' is empty"),
        Skipped("line 5", "'label' is empty"),
    )
    assert data.reading.rows == len(PLENTY) + 3
    assert named(data, everything(data)) == set(PLENTY)


def test_rows_that_cannot_be_read_are_told_with_the_others(tmp_path: Path) -> None:
    data = read(tmp_path, [("too", "many", "fields"), ("", "ham"), *PLENTY])
    assert [skipped.where for skipped in data.reading.skipped] == ["line 2", "line 3"]


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", "\u200e", "\u2060 \u200b"])
def test_labels_that_differ_in_what_cannot_be_seen_are_one(tmp_path: Path, unseen: str) -> None:
    data = read(tmp_path, [*PLENTY, ("one more", f"ham{unseen}"), ("another", f"{unseen}spam")])
    assert data.labels == ("ham", "spam")


def test_a_label_of_which_nothing_can_be_seen_is_none(tmp_path: Path) -> None:
    data = read(tmp_path, [*PLENTY, ("one more", "\u200b"), ("\ufeff \u200e", "ham")])
    assert data.labels == ("ham", "spam")
    assert [skipped.reason for skipped in data.reading.skipped] == ["'label' is empty", "'text' is empty"]


def test_dropped_copies_are_told_when_they_leave_a_class_with_nothing(tmp_path: Path) -> None:
    copies = [("hello there!", "rare")] * 50
    with pytest.raises(DataInvalid, match=r"example of 'rare' \(1 in all\); .*49 dropped: the same as an example"):
        read(tmp_path, [*PLENTY, *copies])


def test_labels_that_differ_in_space_or_form_are_one(tmp_path: Path) -> None:
    rows = [("first", " caf\u00e9"), ("second", "cafe\u0301 "), *((f"text {n}", "caf\u00e9") for n in range(40))]
    assert read(tmp_path, [*PLENTY, *rows]).labels == ("caf\u00e9", "ham", "spam")


def test_given_parts_are_kept(tmp_path: Path) -> None:
    names = ["train", "Test", "VAL", "valid", "validation", "dev"]
    rows = [(f"{text} {name}", label, name) for text, label in PLENTY[:4] for name in names]
    data = read_split(tmp_path, rows)
    assert {text for text, _ in data.train} == {text for text, _, name in rows if name == "train"}
    assert {text for text, _ in data.test} == {text for text, _, name in rows if name == "Test"}
    assert len(data.validation) == len(rows) - len(data.train) - len(data.test)


def test_a_part_that_is_not_given_is_made_out_of_train(tmp_path: Path) -> None:
    tests = [("a test", "spam", "test"), ("another", "ham", "test")]
    data = read_split(tmp_path, [*((*row, "train") for row in PLENTY), *tests])
    assert named(data, data.test) == {(text, label) for text, label, _ in tests}
    assert named(data, data.train) | named(data, data.validation) == set(PLENTY)
    assert data.validation
    hashed = read(tmp_path, PLENTY)
    validations = [("one more", "spam", "val")]
    data = read_split(tmp_path, [*((*row, "train") for row in PLENTY), *validations])
    assert [text for text, _ in data.validation] == ["one more"]
    assert data.test == hashed.test


def test_what_is_in_test_is_dropped_from_the_other_parts(tmp_path: Path) -> None:
    parts = [(f"{text} {part}", label, part) for text, label in PLENTY for part in ("train", "val", "test")]
    copies = [
        ("Spam number 0 test", "spam", "train"),
        ("spam number 0  TEST", "ham", "train"),
        ("spam number 1 test", "spam", "val"),
        ("spam number 2 val", "spam", "train"),
    ]
    data = read_split(tmp_path, [*copies, *parts])
    assert {text for text, _ in everything(data)} == {text for text, _, _ in parts}
    assert data.reading.straddling == 4
    assert data.reading.conflicting == 1
    assert data.reading.duplicates == 0


def test_a_row_of_no_known_part_is_skipped_and_told(tmp_path: Path) -> None:
    rows = [*((*row, "train") for row in PLENTY), ("x", "ham", "holdout"), ("y", "ham", "")]
    assert read_split(tmp_path, rows).reading.skipped == (
        Skipped("line 82", "'split' is not train, validation or test"),
        Skipped("line 83", "'split' is not train, validation or test"),
    )


def test_fewer_than_two_classes_stop_and_tell_what_was_skipped(tmp_path: Path) -> None:
    rows = [(f"text {number}", "spam") for number in range(40)]
    with pytest.raises(DataInvalid, match=r"has one class, 'spam'; a classifier needs two or more$"):
        read(tmp_path, rows)
    told = r"two or more; 4 skipped: 'label' is empty \(line 42, line 43, line 44 and 1 more\)$"
    with pytest.raises(DataInvalid, match=told):
        read(tmp_path, [*rows, *[("text", "")] * 4])


def test_ten_texts_of_each_class_are_enough(tmp_path: Path) -> None:
    for start in range(0, 600, 20):
        rows = [(f"number {number}", ("even", "odd")[number % 2]) for number in range(start, start + 20)]
        data = read(tmp_path, rows)
        assert {label for _, label in data.train} == {label for _, label in data.test} == {0, 1}
        assert data.validation


def test_labels_that_may_not_be_meant_so_are_kept_and_told(tmp_path: Path) -> None:
    odd = [(f"{label} {number}", label) for label in ("Spam", "nan", "N/A") for number in range(6)]
    data = read(tmp_path, [*PLENTY, *odd])
    assert data.labels == ("N/A", "Spam", "ham", "nan", "spam")
    assert data.reading.lines()[1:] == [
        "labels differ only in case: 'Spam', 'spam'",
        "label 'N/A' looks like a missing value",
        "label 'nan' looks like a missing value",
    ]


def test_a_file_without_a_usable_row_stops(tmp_path: Path) -> None:
    with pytest.raises(
        DataInvalid, match=r"no row that can be used; 1 skipped: 'text' is empty \(line 2\); 1 skipped"
    ):
        read(tmp_path, [("", "spam"), ("text", "")])


def test_a_class_without_a_test_example_stops_and_tells_what_to_do(tmp_path: Path) -> None:
    rows = [
        *((*row, "train") for row in PLENTY),
        ("x", "eggs", "train"),
        ("y", "eggs", "val"),
        ("z", "rare", "train"),
    ]
    tests = [("u", "spam", "test"), ("v", "ham", "test")]
    with pytest.raises(
        DataInvalid, match=r"no test example of 'eggs' \(2 in all\), 'rare' \(1 in all\); add examples of each, "
    ):
        read_split(tmp_path, [*rows, *tests])


def test_a_class_without_a_training_example_stops(tmp_path: Path) -> None:
    rows = [*((*row, "train") for row in PLENTY), ("x", "eggs", "test"), ("y", "eggs", "val")]
    with pytest.raises(
        DataInvalid, match=r"no train example of 'eggs' \(2 in all\); add examples of each, or leave"
    ):
        read_split(tmp_path, rows)


def test_an_empty_validation_part_stops(tmp_path: Path) -> None:
    rows = [("a", "x", "train"), ("b", "y", "train")]
    tests = [("c", "x", "test"), ("d", "y", "test")]
    file = written(tmp_path / "texts.csv", [*rows, *tests], ("text", "label", "split"))
    with pytest.raises(DataInvalid, match=r"none of the 4 examples falls in validation; add examples"):
        load(file, "text", "label", "split", validation_fraction=0.0)


def test_a_column_that_is_not_there_stops(tmp_path: Path) -> None:
    file = written(tmp_path / "texts.csv", PLENTY)
    for columns in (("Text", "label"), ("text", "labels"), ("text", "label", "split")):
        with pytest.raises(
            DataInvalid, match=r"has no column '(Text|labels|split)'; its columns are 'text', 'label'"
        ):
            load(file, *columns)


def test_one_column_cannot_serve_twice(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="cannot serve twice: 'text', 'text'"):
        load(written(tmp_path / "texts.csv", PLENTY), "text", "text")


def test_a_file_that_is_not_there_stops(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"nowhere\.csv"):
        load(tmp_path / "nowhere.csv", "text", "label")


def test_fractions_are_the_callers(tmp_path: Path) -> None:
    file = written(tmp_path / "texts.csv", PLENTY)
    assert len(load(file, "text", "label", test_fraction=0.6).test) > len(load(file, "text", "label").test) > 0
    with pytest.raises(DataInvalid, match="leave nothing to train on"):
        load(file, "text", "label", validation_fraction=0.5, test_fraction=0.5)
