"""What a classifier is worth on a test set. Axes: N images, K labels."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CALIBRATION_BINS = 15
MOST_ROWS = 40


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
    """Figures on one test set; `confusion` has a row for each true and a column for each predicted label."""

    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    per_label: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def summary(self) -> dict[str, object]:
        """The figures as plain values, for the report."""
        return asdict(self)


def evaluate(probabilities_NK: Tensor, labels_N: Tensor, labels: tuple[str, ...]) -> Evaluation:
    """Measure predicted probabilities against the truth.

    Args:
        probabilities_NK: Rows sum to 1.
        labels_N: int64 indices into `labels`.
        labels: The K names.

    Source: expected calibration error as in Naeini et al., 2015, with 15 bins of equal width.
    """
    # Imported where it is used: it takes seconds, which a run that fails early should not.
    from torchmetrics.functional import classification

    K = len(labels)
    confusion_KK = classification.multiclass_confusion_matrix(probabilities_NK, labels_N, K)
    per_label = {
        "precision": classification.multiclass_precision(probabilities_NK, labels_N, K, average="none"),
        "recall": classification.multiclass_recall(probabilities_NK, labels_N, K, average="none"),
        "f1": classification.multiclass_f1_score(probabilities_NK, labels_N, K, average="none"),
    }
    support_K = torch.bincount(labels_N, minlength=K).tolist()
    return Evaluation(
        accuracy=(probabilities_NK.argmax(1) == labels_N).double().mean().item(),
        macro_f1=per_label["f1"].mean().item(),
        nll=F.nll_loss(probabilities_NK.clamp(min=torch.finfo(torch.float32).tiny).log(), labels_N).item(),
        ece=calibration_error(probabilities_NK, labels_N),
        per_label=tuple(
            LabelMetrics(
                label, support=support_K[k], **{name: values_K[k].item() for name, values_K in per_label.items()}
            )
            for k, label in enumerate(labels)
        ),
        confusion=tuple(tuple(row) for row in confusion_KK.tolist()),
    )


def calibration_error(probabilities_NK: Tensor, labels_N: Tensor) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over 15 bins."""
    from torchmetrics.functional import classification

    K = probabilities_NK.shape[1]
    return classification.multiclass_calibration_error(
        probabilities_NK, labels_N, K, n_bins=CALIBRATION_BINS, norm="l1"
    ).item()


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
    return "\n".join(lines)
