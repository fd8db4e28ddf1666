"""What a classifier is worth on a test set. Axes: N examples, K labels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import torch
from torch import Tensor

CALIBRATION_BINS = 15
MOST_ROWS = 40
# The confusion matrix of more labels is larger than all else in a report, and nobody reads it.
MOST_CONFUSED_LABELS = 200


@dataclass(frozen=True)
class Answers:
    """What a model said of N examples, in no more room than they need: K can be ten thousand.

    Attributes:
        labels_N: What would have been right, int64.
        predicted_N: The likeliest label, int64.
        confidence_N: Its probability.
        likelihood_N: The probability of the right label.
    """

    labels_N: Tensor
    predicted_N: Tensor
    confidence_N: Tensor
    likelihood_N: Tensor

    @classmethod
    def of(cls, probabilities_NK: Tensor, labels_N: Tensor) -> Self:
        """Keep what counts of probabilities, whose rows sum to 1."""
        confidence_N, predicted_N = probabilities_NK.max(1)
        likelihood_N = probabilities_NK.gather(1, labels_N[:, None]).squeeze(1)
        return cls(labels_N, predicted_N, confidence_N, likelihood_N)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the answers to several batches behind one another."""
        return cls(
            torch.cat([part.labels_N for part in parts]),
            torch.cat([part.predicted_N for part in parts]),
            torch.cat([part.confidence_N for part in parts]),
            torch.cat([part.likelihood_N for part in parts]),
        )

    @property
    def right_N(self) -> Tensor:
        """Whether each is right, bool."""
        return self.predicted_N == self.labels_N


@dataclass(frozen=True)
class LabelMetrics:
    """One label's row of the report; `support` counts its test examples."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """Figures on one test set.

    `confusion` has a row for each true and a column for each predicted label; none at all if there are over 200.
    """

    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    per_label: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def summary(self) -> dict[str, object]:
        """The figures as plain values, for the report."""
        return asdict(self)


def evaluate(answers: Answers, labels: tuple[str, ...]) -> Evaluation:
    """Measure answers against the truth.

    Args:
        answers: Their labels are indices into `labels`.
        labels: The K names.

    Source: expected calibration error as in Naeini et al., 2015, with 15 bins of equal width.
    """
    per_label = _per_label(answers, labels)
    least = torch.finfo(torch.float32).tiny
    return Evaluation(
        accuracy=answers.right_N.double().mean().item(),
        macro_f1=sum(row.f1 for row in per_label) / len(labels),
        nll=-answers.likelihood_N.clamp(min=least).log().mean().item(),
        ece=calibration_error(answers.confidence_N, answers.right_N),
        per_label=per_label,
        confusion=_confusion(answers, len(labels)) if len(labels) <= MOST_CONFUSED_LABELS else (),
    )


def calibration_error(confidence_N: Tensor, right_N: Tensor) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over 15 bins.

    Args:
        confidence_N: Probability that an answer is right, as the model puts it.
        right_N: Whether it is, bool.
    """
    # Imported where it is used: it takes seconds, which a run that fails early should not.
    from torchmetrics.functional import classification

    # Of one answer alone: whether it is right has two outcomes, however many answers there were to choose from.
    return classification.binary_calibration_error(
        confidence_N, right_N.long(), n_bins=CALIBRATION_BINS, norm="l1"
    ).item()


def _per_label(answers: Answers, labels: tuple[str, ...]) -> tuple[LabelMetrics, ...]:
    # Counted here: torchmetrics makes a matrix of K x K for each of these figures.
    K = len(labels)
    right_K = torch.bincount(answers.labels_N[answers.right_N], minlength=K).double()
    support_K = torch.bincount(answers.labels_N, minlength=K)
    predicted_K = torch.bincount(answers.predicted_N, minlength=K)
    figures = zip(
        labels,
        (right_K / predicted_K.clamp(min=1)).tolist(),
        (right_K / support_K.clamp(min=1)).tolist(),
        (2 * right_K / (support_K + predicted_K).clamp(min=1)).tolist(),
        support_K.tolist(),
        strict=True,
    )
    return tuple(LabelMetrics(*row) for row in figures)


def _confusion(answers: Answers, K: int) -> tuple[tuple[int, ...], ...]:
    cell_N = answers.labels_N * K + answers.predicted_N
    counts_KK = torch.bincount(cell_N, minlength=K * K).view(K, K)
    return tuple(tuple(row) for row in counts_KK.tolist())


def format_table(evaluation: Evaluation) -> str:
    """The per-label figures as lines of text."""
    shown = evaluation.per_label[:MOST_ROWS]
    width = max(len(row.label) for row in shown)
    lines = [f"{'label':<{width}}  precision  recall      f1  support"]
    lines += [
        f"{row.label:<{width}}  {row.precision:9.3f}  {row.recall:6.3f}  {row.f1:6.3f}  {row.support:7d}"
        for row in shown
    ]
    if more := len(evaluation.per_label) - len(shown):
        lines.append(f"and {more} more labels")
    if not evaluation.confusion:
        lines.append(f"no confusion matrix: it is left out for more than {MOST_CONFUSED_LABELS} labels")
    return "\n".join(lines)
