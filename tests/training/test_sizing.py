"""How long is trained on few examples, where nobody has said."""

import io
from typing import Any

import pytest

from tests.training.small import options
from training.progress import Progress
from training.recipes.sizing import sized


def found(train_size: int, *given: str, **changes: Any) -> tuple[int, int, str]:
    """Batch size and passes that come of 64 and 5, and what is said."""
    said = io.StringIO()
    one = options(**{"batch_size": 64, "epochs": 5} | changes)
    fitting = sized(one, given, train_size, least_steps=100, progress=Progress(said))
    return fitting.batch_size, fitting.epochs, said.getvalue()


@pytest.mark.parametrize(
    ("train_size", "batch_size", "epochs"),
    [(100_000, 64, 5), (1280, 64, 5), (1279, 64, 6), (200, 25, 13), (64, 8, 13), (3, 8, 100)],
)
def test_the_fewer_examples_the_smaller_the_batches_and_the_more_passes(
    train_size: int, batch_size: int, epochs: int
) -> None:
    assert found(train_size)[:2] == (batch_size, epochs)


def test_it_is_told_if_it_changes_anything() -> None:
    assert found(200)[2] == "of 200 training examples, --batch-size 25, --epochs 13 unless you say otherwise\n"
    assert found(100_000)[2] == ""


def test_what_was_given_stays_and_changes_nothing_else() -> None:
    assert found(200, "batch_size")[:2] == (64, 13)
    assert found(200, "epochs")[:2] == (25, 5)
    assert found(200, "epochs", "batch_size") == (64, 5, "")
    assert found(9000, "batch_size", batch_size=1024)[:2] == (1024, 13)


def test_a_limit_leaves_few_and_a_budget_counts_no_passes() -> None:
    assert found(100_000, limit=200)[:2] == (25, 13)
    assert found(200, budget_s=3)[:2] == (25, 5)


@pytest.mark.parametrize("optimizer", ["gd", "lbfgs"])
def test_steps_over_the_whole_set_stay_as_they_are(optimizer: str) -> None:
    assert found(20, optimizer=optimizer) == (64, 5, "")
