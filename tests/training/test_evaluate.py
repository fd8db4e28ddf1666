import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.calibrate import fit_temperature
from training.evaluate import evaluate

LABELS = ("a", "b", "c")


def test_the_figures_are_those_of_a_case_done_by_hand() -> None:
    probabilities_NK = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    found = evaluate(probabilities_NK, torch.tensor([0, 1, 1, 2]), LABELS)
    assert found.accuracy == 0.75
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 1))
    assert [row.support for row in found.per_label] == [1, 2, 1]
    assert [row.precision for row in found.per_label] == [0.5, 1.0, 1.0]
    assert [row.recall for row in found.per_label] == [1.0, 0.5, 1.0]
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.nll == pytest.approx(-sum(map(math.log, (0.8, 0.6, 0.3, 0.8))) / 4)
    # Two at 0.8, both right; two at 0.6, one right.
    assert found.ece == pytest.approx(0.5 * 0.2 + 0.5 * 0.1, abs=1e-6)


def test_a_label_that_never_occurs_counts_as_nothing() -> None:
    found = evaluate(torch.tensor([[0.9, 0.05, 0.05]]), torch.tensor([0]), LABELS)
    assert (found.accuracy, found.per_label[2].support) == (1.0, 0)


def test_a_certain_mistake_has_a_finite_likelihood() -> None:
    found = evaluate(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]), LABELS)
    assert math.isfinite(found.nll)


def overconfident(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels were drawn from their own softmax, then sharpened: the right temperature is known."""
    generator = torch.Generator().manual_seed(0)
    logits_NK = torch.randn(20_000, 4, generator=generator) * 2
    labels_N = torch.multinomial(logits_NK.softmax(1), 1, generator=generator).squeeze(1)
    return logits_NK * factor, labels_N


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_known_temperature_is_found(factor: float) -> None:
    assert fit_temperature(*overconfident(factor)) == pytest.approx(factor, rel=0.05)


def test_calibration_lowers_the_error_and_changes_no_label() -> None:
    logits_NK, labels_N = overconfident(3.0)
    labels = ("a", "b", "c", "d")
    before = evaluate(logits_NK.softmax(1), labels_N, labels)
    after = evaluate((logits_NK / fit_temperature(logits_NK, labels_N)).softmax(1), labels_N, labels)
    assert before.ece > 0.15
    assert after.ece < 0.02
    assert after.nll < before.nll
    assert after.accuracy == before.accuracy


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=20),
    st.sampled_from([0, 1, None]),
)
def test_the_temperature_is_always_usable(logits: list[tuple[float, float]], label: int | None) -> None:
    logits_NK = torch.tensor(logits)
    labels_N = logits_NK.argmax(1) if label is None else torch.full((len(logits),), label)
    assert 0.05 <= fit_temperature(logits_NK, labels_N) <= 20
