"""Scores become labels: the best ones, in order, whatever the neighbours are."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.errors import InferenceFailed
from app.responding import Raw, to_predictions

LABELS = ("a", "b", "c", "d")


def predictions(scores_NK: Tensor, top_ks: Sequence[int | None]) -> list[Any]:
    """What is said of each item, whatever it is."""
    return to_predictions(scores_NK, LABELS, top_ks)


def named(scores: list[float], top_k: int) -> list[str]:
    (found,) = predictions(torch.tensor([scores]), [top_k])
    assert (found["label"], found["score"]) == (found["top"][0]["label"], found["top"][0]["score"])
    return [each["label"] for each in found["top"]]


def test_the_best_come_first_and_no_more_than_asked() -> None:
    scores = [0.1, 0.4, 0.2, 0.3]
    assert named(scores, 1) == ["b"]
    assert named(scores, 3) == ["b", "d", "c"]
    assert named(scores, 4) == named(scores, 99) == ["b", "d", "c", "a"]


def test_of_equal_scores_the_earlier_label_comes_first() -> None:
    for top_k in (1, 2, 3, 4):
        assert named([0.25, 0.25, 0.25, 0.25], top_k) == ["a", "b", "c", "d"][:top_k]
        assert named([0.0, 1.0, 0.0, 0.0], top_k) == ["b", "a", "c", "d"][:top_k]


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.integers(1, 6))
def test_whatever_the_scores_the_order_is_that_of_a_sort(scores: list[float], top_k: int) -> None:
    (found,) = predictions(torch.tensor([scores]), [top_k])
    wanted = sorted(scores, reverse=True)[:top_k]
    assert [each["score"] for each in found["top"]] == pytest.approx(wanted, abs=1e-6)


def test_each_item_gets_as_many_as_it_asked_for() -> None:
    scores_NK = torch.tensor([[0.1, 0.4, 0.2, 0.3]] * 2)
    first, second = predictions(scores_NK, [1, 2])
    assert (len(first["top"]), len(second["top"])) == (1, 2)


@pytest.mark.parametrize("value", [math.nan, -0.5, 1.5, math.inf])
def test_scores_that_are_no_probabilities_fail_their_own_item_only(value: float) -> None:
    scores_NK = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.1, value, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]])
    first, second, third = predictions(scores_NK, [1, 1, 1])
    assert isinstance(second, InferenceFailed)
    assert (first["label"], third["label"]) == ("b", "a")


def test_whoever_wants_the_scores_themselves_gets_them_beside_one_who_does_not() -> None:
    scores_NK = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.1, math.nan, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]])
    first, second, third = predictions(scores_NK, [None, None, 1])
    assert isinstance(first, Raw)
    assert [list(part) for part in first.parts] == [scores_NK[0].tolist()]
    assert isinstance(second, InferenceFailed)
    assert third["label"] == "a"
