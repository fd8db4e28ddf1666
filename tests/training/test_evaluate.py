import json
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchmetrics.functional import classification

from training.calibrate import fit_confidence, fit_temperature, log_odds
from training.evaluate import MOST_CONFUSED_LABELS, Answers, calibration_error, evaluate, format_table

LABELS = ("a", "b", "c")


def test_the_figures_are_those_of_a_case_done_by_hand() -> None:
    probabilities_NK = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    found = evaluate(Answers.of(probabilities_NK, torch.tensor([0, 1, 1, 2])), LABELS)
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
    found = evaluate(Answers.of(torch.tensor([[0.9, 0.05, 0.05]]), torch.tensor([0])), LABELS)
    assert (found.accuracy, found.per_label[2].support) == (1.0, 0)


def some_answers(N: int, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are right about every other time."""
    generator = torch.Generator().manual_seed(N * K)
    labels_N = torch.randint(0, K, (N,), generator=generator)
    logits_NK = torch.randn(N, K, generator=generator)
    logits_NK[torch.arange(0, N, 2), labels_N[::2]] += 10
    return logits_NK.softmax(1), labels_N


@given(st.integers(1, 60), st.integers(2, 8))
def test_the_figures_are_those_of_torchmetrics(N: int, K: int) -> None:
    probabilities_NK, labels_N = some_answers(N, K)
    found = evaluate(Answers.of(probabilities_NK, labels_N), tuple(map(str, range(K))))
    for name, reference in (
        ("precision", classification.multiclass_precision),
        ("recall", classification.multiclass_recall),
        ("f1", classification.multiclass_f1_score),
    ):
        expected_K = reference(probabilities_NK, labels_N, K, average="none")
        assert [getattr(row, name) for row in found.per_label] == pytest.approx(expected_K.tolist())
    expected_KK = classification.multiclass_confusion_matrix(probabilities_NK, labels_N, K)
    assert torch.equal(torch.tensor(found.confusion), expected_KK)
    ece = classification.multiclass_calibration_error(probabilities_NK, labels_N, K, n_bins=15).item()
    assert found.ece == pytest.approx(ece)
    answers = Answers.of(probabilities_NK, labels_N)
    assert calibration_error(answers.confidence_N, answers.right_N) == pytest.approx(ece)


@given(st.integers(1, 60), st.integers(1, 20))
def test_answers_joined_are_those_of_all_at_once(N: int, at_once: int) -> None:
    probabilities_NK, labels_N = some_answers(N, 4)
    parts = zip(probabilities_NK.split(at_once), labels_N.split(at_once), strict=True)
    joined = Answers.joined([Answers.of(*part) for part in parts])
    labels = ("a", "b", "c", "d")
    assert evaluate(joined, labels) == evaluate(Answers.of(probabilities_NK, labels_N), labels)


def test_a_confusion_matrix_that_nobody_could_read_is_left_out_and_the_table_says_so() -> None:
    for K, left_out in ((MOST_CONFUSED_LABELS, False), (MOST_CONFUSED_LABELS + 1, True), (10_000, True)):
        found = evaluate(Answers.of(*some_answers(50, K)), tuple(map(str, range(K))))
        assert len(found.confusion) == (0 if left_out else K)
        assert ("no confusion matrix: it is left out for more than 200 labels" in format_table(found)) == left_out
        assert found.accuracy >= 0.5
        # A line for each label at most, and not one for each pair.
        assert len(json.dumps(found.summary())) < 300_000 + 150 * K


def test_a_certain_mistake_has_a_finite_likelihood() -> None:
    found = evaluate(Answers.of(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0])), LABELS)
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


def confidence(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> float:
    return (logits_NK / fit_temperature(logits_NK, labels_N)).softmax(1).max(1).values.mean().item()


def test_the_more_answers_are_right_the_surer_they_become_and_never_certain() -> None:
    def surest(count: int) -> float:
        return confidence(torch.tensor([[0.2, 0.0]]).expand(count, -1), torch.zeros(count, dtype=torch.int64))

    sure = [surest(count) for count in (1, 5, 30, 300)]
    assert sure == sorted(sure)
    assert 0.5 < sure[0] < 0.6
    assert 0.9 < sure[-1] < 1.0


def test_a_few_wrong_answers_do_not_make_scores_say_nothing() -> None:
    logits_NK = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert 0.6 < confidence(logits_NK, torch.tensor([0, 0])) < 0.9


def test_calibration_lowers_the_error_and_changes_no_label() -> None:
    logits_NK, labels_N = overconfident(3.0)
    labels = ("a", "b", "c", "d")
    temperature = fit_temperature(logits_NK, labels_N)
    before = evaluate(Answers.of(logits_NK.softmax(1), labels_N), labels)
    after = evaluate(Answers.of((logits_NK / temperature).softmax(1), labels_N), labels)
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


def answered(scale: float, offset: float, N: int = 200_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms of scores, and which answers were right: as many as their scaled and moved log-odds say."""
    generator = torch.Generator().manual_seed(0)
    score_N = torch.rand(N, generator=generator, dtype=torch.float64)
    share_N = (scale * (score_N / (1 - score_N)).log() + offset).sigmoid()
    return score_N.log().float(), torch.rand(N, generator=generator, dtype=torch.float64) < share_N


@pytest.mark.parametrize(("scale", "offset"), [(0.5, 1.0), (1.0, 0.0), (6.0, -3.0)])
def test_the_known_scale_and_offset_are_found(scale: float, offset: float) -> None:
    found_scale, found_offset = fit_confidence(*answered(scale, offset))
    assert found_scale == pytest.approx(scale, rel=0.05)
    assert found_offset == pytest.approx(offset, abs=0.1)


def sureness(log_scores_N: torch.Tensor, right_N: torch.Tensor) -> torch.Tensor:
    scale, offset = fit_confidence(log_scores_N, right_N)
    return (scale * log_odds(log_scores_N) + offset).sigmoid()


def test_scores_pressed_together_by_label_smoothing_are_spread_out_again() -> None:
    generator = torch.Generator().manual_seed(1)
    share_N = torch.rand(20_000, generator=generator)
    right_N = torch.rand(20_000, generator=generator) < share_N
    pressed_N = 0.7 + 0.2 * share_N
    assert calibration_error(pressed_N, right_N) > 0.25
    assert calibration_error(sureness(pressed_N.log(), right_N), right_N) < 0.06


def test_answers_that_are_all_wrong_are_not_called_right() -> None:
    assert sureness(torch.full((2000,), -0.1), torch.zeros(2000, dtype=torch.bool)).max() < 0.01
    assert sureness(torch.full((2000,), -0.7), torch.ones(2000, dtype=torch.bool)).min() > 0.9


def test_two_answers_do_not_settle_what_scores_mean() -> None:
    score_N = sureness(torch.tensor([-0.1, -1.0]), torch.tensor([True, False]))
    assert 0.3 < score_N[0] < 0.95
    assert 0.05 < score_N[1] < score_N[0]
    # Nor does the wrong order make all alike.
    backwards_N = sureness(torch.tensor([-0.1, -1.0]), torch.tensor([False, True]))
    assert backwards_N[0] > 1.1 * backwards_N[1]


@given(st.lists(st.tuples(st.floats(-100, 0), st.booleans()), min_size=1, max_size=20))
@example([(0.0, True), (-0.0078125, False)])
def test_scale_and_offset_are_always_usable(answers: list[tuple[float, bool]]) -> None:
    scores, right = zip(*answers, strict=True)
    scale, offset = fit_confidence(torch.tensor(scores), torch.tensor(right))
    assert 0.1 <= scale <= 10
    assert -50 <= offset <= 50
