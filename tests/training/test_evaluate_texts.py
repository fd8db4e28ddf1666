from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluate_texts import edit_distance, error_rate, token_error_rate

sequences = st.lists(st.sampled_from("abc"), max_size=6)
texts = sequences.map(" ".join)


def by_definition(first: list[str], second: list[str]) -> int:
    """The recursion of the definition, on every pair of ends."""

    @cache
    def distance(left: int, right: int) -> int:
        if not left or not right:
            return left + right
        replaced = distance(left - 1, right - 1) + (first[left - 1] != second[right - 1])
        return min(distance(left - 1, right) + 1, distance(left, right - 1) + 1, replaced)

    return distance(len(first), len(second))


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "cab", 2), ("abc", "xyz", 3), ("ab", "ba", 2)],
)
def test_known_distances(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == distance


@given(sequences, sequences)
def test_the_distance_is_that_of_the_definition_from_both_sides(first: list[str], second: list[str]) -> None:
    assert edit_distance(first, second) == by_definition(first, second) == edit_distance(second, first)


@given(sequences, sequences)
def test_only_what_is_the_same_has_no_distance(first: list[str], second: list[str]) -> None:
    assert (edit_distance(first, second) == 0) == (first == second)
    assert abs(len(first) - len(second)) <= edit_distance(first, second) <= max(len(first), len(second))


@given(sequences, sequences, sequences)
def test_a_way_around_is_no_shorter(first: list[str], second: list[str], third: list[str]) -> None:
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)


def test_a_text_is_right_if_it_is_one_of_its_targets_whole() -> None:
    accepted = [("T AH0 M EY1 T OW0", "T AH0 M AA1 T OW0"), ("K AE1 T",), ("D AO1 G",), ("F IH1 SH",)]
    assert error_rate(["T AH0 M AA1 T OW0", "K AE1 T", "D AO1", "F IH1 SH S"], accepted) == 0.5


def test_edits_are_counted_against_the_nearest_target() -> None:
    assert token_error_rate(["a b c"], [("x y z w", "a b d")]) == pytest.approx(1 / 3)
    assert token_error_rate(["a b c"], [("x y z w", "a b c")]) == 0


def test_of_targets_equally_near_the_longest_counts() -> None:
    for targets in [("a b", "a b c d"), ("a b c d", "a b")]:
        assert token_error_rate(["a b c"], [targets]) == pytest.approx(1 / 4)


def test_edits_and_tokens_are_summed_before_dividing() -> None:
    assert token_error_rate(["x", "a b c"], [("a",), ("a b c",)]) == pytest.approx(1 / 4)


def test_more_edits_than_tokens_are_a_rate_over_one() -> None:
    assert token_error_rate(["a b c"], [("x",)]) == 3
    assert token_error_rate(["a b"], [("",)]) == 2


def test_white_space_is_no_token() -> None:
    assert token_error_rate([" a  b\n"], [("a b",)]) == 0


@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_a_further_target_never_makes_a_text_worse(pairs: list[tuple[str, list[str]]]) -> None:
    written = [text for text, _ in pairs]
    one, all_ = [targets[:1] for _, targets in pairs], [targets for _, targets in pairs]
    assert 0 <= error_rate(written, all_) <= error_rate(written, one) <= 1
    assert error_rate(written, [[*targets, text] for text, targets in pairs]) == 0
    assert token_error_rate(written, [[*targets, text] for text, targets in pairs]) == 0


@pytest.mark.parametrize("rate", [error_rate, token_error_rate])
def test_every_text_needs_its_targets(rate: type) -> None:
    with pytest.raises(ValueError, match="shorter"):
        rate(["a", "b"], [("a",)])
