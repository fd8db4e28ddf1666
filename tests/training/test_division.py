from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.datasets.division import divide
from training.datasets.keyed import Keyed, key_of
from training.datasets.splitting import PARTS, Part, part_of, place_of

numbers = st.integers(0, 10_000)
labels = st.sampled_from("abc")


def examples(rows: Sequence[tuple[int, str]], given: Part | None = None) -> list[Keyed[int]]:
    return [Keyed(key_of(str(number)), label, given, number) for number, label in rows]


def divided(
    rows: Sequence[Keyed[int]], validation_fraction: float = 0.1, test_fraction: float = 0.2
) -> dict[Part, list[int]]:
    division = divide(rows, validation_fraction, test_fraction)
    return {part: [each.value for each in division.parts[part]] for part in PARTS}


def in_part(part: Part, count: int) -> list[int]:
    """The first numbers that the hash puts there."""
    found = [number for number in range(1000) if part_of(key_of(str(number)), 0.1, 0.2) == part]
    return found[:count]


def by_place(found: Sequence[int]) -> list[int]:
    return sorted(found, key=lambda number: place_of(key_of(str(number))))


@given(st.lists(st.tuples(numbers, labels), unique_by=lambda row: row[0]))
@example([(number, "a") for number in in_part("train", 3)])
@example([(number, "a") for number in in_part("test", 3)])
@example([(number, "a") for number in in_part("validation", 3)])
def test_every_class_of_three_can_be_trained_and_measured(rows: list[tuple[int, str]]) -> None:
    parts = divided(examples(rows))
    label_of = dict(rows)
    for label, count in Counter(label_of.values()).items():
        for part in ("train", "test"):
            assert count < 3 or any(label_of[number] == label for number in parts[part])
    assert sorted(number for part in PARTS for number in parts[part]) == sorted(label_of)


@given(st.lists(st.tuples(numbers, labels), max_size=30))
def test_the_parts_follow_from_the_data_and_not_from_its_order(rows: list[tuple[int, str]]) -> None:
    first, again = divided(examples(rows)), divided(examples(sorted(rows)))
    assert {part: sorted(first[part]) for part in PARTS} == {part: sorted(again[part]) for part in PARTS}


@given(st.lists(st.tuples(numbers, labels), max_size=30))
def test_a_key_of_two_labels_stays_in_one_part(rows: list[tuple[int, str]]) -> None:
    parts = divided(examples(rows))
    assert sum(len(set(parts[part])) for part in PARTS) == len({number for number, _ in rows})


def test_the_nearest_keys_move_and_no_others() -> None:
    a, b = by_place(in_part("train", 20)), by_place(in_part("test", 5))
    parts = divided(examples([*((number, "a") for number in a), *((number, "b") for number in b)]))
    # The class a wants a test example, then b one to train on, and then there is nothing to validate on.
    assert parts == {"train": [*a[2:], b[-1]], "validation": [a[1]], "test": [a[0], *b[:-1]]}


def test_where_nothing_is_lacking_nothing_moves() -> None:
    rows = [(number, "ab"[number % 2]) for number in range(400)]
    parts = divided(examples(rows))
    for part in PARTS:
        assert parts[part] == [number for number, _ in rows if part_of(key_of(str(number)), 0.1, 0.2) == part]


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_of_fewer_than_three_stays_as_it_is(count: int) -> None:
    rare = in_part("train", 50)[-count:]
    plenty = [(number, "a") for number in range(100) if number not in rare]
    assert set(rare) <= set(divided(examples([*plenty, *((number, "b") for number in rare)]))["train"])


def test_two_classes_of_ten_always_have_all_parts() -> None:
    for start in range(0, 2000, 20):
        parts = divided(examples([(number, "ab"[number % 2]) for number in range(start, start + 20)]))
        assert {number % 2 for number in parts["train"]} == {number % 2 for number in parts["test"]} == {0, 1}
        assert parts["validation"]


def test_what_was_given_to_a_part_never_moves() -> None:
    trained, tested = in_part("test", 20), in_part("train", 20)
    rows = [
        *examples([(number, "a") for number in trained], "train"),
        *examples([(number, "b") for number in tested[:10]], "test"),
        *examples([(number, "b") for number in tested[10:]], "validation"),
    ]
    assert divided(rows) == {"train": trained, "validation": tested[10:], "test": tested[:10]}


def test_a_part_that_is_not_given_is_filled_out_of_train() -> None:
    trained = [(number, "ab"[number % 2]) for number in in_part("train", 20)]
    tested = [(1001, "a"), (1002, "b")]
    parts = divided([*examples(trained, "train"), *examples(tested, "test")])
    assert parts["test"] == [1001, 1002]
    assert parts["validation"] == by_place([number for number, _ in trained])[:1]
