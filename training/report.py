"""A bundle's report: figures as JSON, pictures as PNG."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # No display: training runs on servers and in containers.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from training.evaluate import CALIBRATION_BINS, Evaluation
from training.gate import Judgement
from training.train import Epoch, Trained

DOTS_PER_INCH = 110
LEAST_IN_A_BIN = 20


def write_report(directory: Path, figures: Mapping[str, object]) -> None:
    """Write `report.json`."""
    (directory / "report.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def write_pictures(
    directory: Path,
    evaluation: Evaluation,
    history: Sequence[Epoch],
    best_epoch: int,
    probabilities: dict[str, tuple[Tensor, Tensor]],
) -> None:
    """Write `report/*.png`: the confusion matrix, the learning curves, the calibration diagram.

    Args:
        directory: The bundle's.
        evaluation: Of the exported file, on the test set.
        history: One entry an epoch.
        best_epoch: Index into `history`.
        probabilities: Title -> (probabilities of shape NK, labels of shape N), for the calibration diagram.
    """
    report = directory / "report"
    report.mkdir()
    _save(draw_confusion(evaluation), report / "confusion_matrix.png")
    _save(draw_learning_curves(history, best_epoch), report / "learning_curves.png")
    _save(draw_calibration(probabilities), report / "calibration.png")


def draw_confusion(evaluation: Evaluation) -> Figure:
    """True label down, predicted label across; a cell holds its count, its shade the share of its row."""
    counts = np.array(evaluation.confusion)
    labels = [row.label for row in evaluation.per_label]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_in = max(5.0, 1.5 + 0.55 * len(labels))
    figure, axes = plt.subplots(figsize=(side_in + 0.8, side_in), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true label", shrink=0.8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, test accuracy {evaluation.accuracy:.2%}")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    return figure


def draw_learning_curves(history: Sequence[Epoch], best_epoch: int) -> Figure:
    """Loss and accuracy on the training and validation images, by epoch; the epoch kept is marked."""
    epochs = range(1, len(history) + 1)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, what in zip(panels, ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            values = [getattr(epoch, f"{part}_{what}") for epoch in history]
            axes.plot(epochs, values, marker="o", markersize=4, label=part)
        axes.axvline(best_epoch + 1, color="grey", linestyle=":", label="kept")
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    figure.suptitle("Learning curves (training: augmented images, smoothed labels)")
    return figure


def draw_calibration(probabilities: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    """Reliability diagram: in each bin of confidence, how often the model was right."""
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for title, (probabilities_NK, labels_N) in probabilities.items():
        confidence_N, predicted_N = probabilities_NK.max(1)
        bin_N = (confidence_N * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        # A bin of a few examples shows chance, not calibration.
        filled = [bin_ for bin_ in range(CALIBRATION_BINS) if (bin_N == bin_).sum() >= LEAST_IN_A_BIN]
        right_N = (predicted_N == labels_N).float()
        confidence = [confidence_N[bin_N == bin_].mean().item() for bin_ in filled]
        accuracy = [right_N[bin_N == bin_].mean().item() for bin_ in filled]
        axes.plot(confidence, accuracy, marker="o", markersize=4, label=title)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="Calibration on the test set")
    axes.legend()
    return figure


def format_table(evaluation: Evaluation) -> str:
    """The per-label figures as lines of text."""
    width = max(len(row.label) for row in evaluation.per_label)
    lines = [f"{'label':<{width}}  precision  recall      f1  support"]
    lines += [
        f"{row.label:<{width}}  {row.precision:9.3f}  {row.recall:6.3f}  {row.f1:6.3f}  {row.support:7d}"
        for row in evaluation.per_label
    ]
    return "\n".join(lines)


def summarise(trained: Trained, judgement: Judgement) -> str:
    """The run's figures as two lines of text."""
    before, after = judgement.uncalibrated, judgement.calibrated
    took_s = trained.history[-1].elapsed_s
    return (
        f"trained in {took_s:.0f} s ({trained.precision}), kept epoch {trained.best_epoch + 1}\n"
        f"test accuracy {after.accuracy:.2%}, macro F1 {after.macro_f1:.4f}, "
        f"ECE {before.ece:.4f} -> {after.ece:.4f}, NLL {before.nll:.4f} -> {after.nll:.4f}"
    )


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=DOTS_PER_INCH)
    plt.close(figure)
