"""The pictures of a report. Axes: N examples.

Figures are made without pyplot, which would keep each of them and look for a display.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from training.evaluate import CALIBRATION_BINS, Evaluation
from training.trained import Epoch

LEAST_IN_A_BIN = 20
# With more labels than this the cells are too small for numbers, and then for names.
MOST_NUMBERED_LABELS = 30
MOST_NAMED_LABELS = 60


def draw_confusion(evaluation: Evaluation) -> Figure:
    """True label down, predicted label across; a cell holds its count, its shade the share of its row.

    Args:
        evaluation: With a confusion matrix.
    """
    counts = np.array(evaluation.confusion)
    labels = [row.label for row in evaluation.per_label]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_in = min(18.0, max(5.0, 1.5 + 0.55 * len(labels)))
    figure = Figure(figsize=(side_in + 0.8, side_in), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true label", shrink=0.8)
    if len(labels) <= MOST_NAMED_LABELS:
        # A label is text, whatever it holds: two dollar signs would make a formula of it, which may be none.
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, test accuracy {evaluation.accuracy:.2%}")
    for (row, column), count in np.ndenumerate(counts):
        if count and len(labels) <= MOST_NUMBERED_LABELS:
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    return figure


def draw_learning_curves(history: Sequence[Epoch], best_epoch: int, metric: str) -> Figure:
    """Loss and metric on the training and validation part, by epoch; the epoch kept is marked."""
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "score"), strict=True):
        for part in ("train", "validation"):
            values = [getattr(epoch, f"{part}_{what}") for epoch in history]
            axes.plot(epochs, values, marker="o", markersize=4, label=part)
        axes.axvline(best_epoch + 1, color="grey", linestyle=":", label="kept")
        axes.set(xlabel="epoch", ylabel="loss" if what == "loss" else metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    figure.suptitle("Learning curves (training: augmented, with dropout and smoothed labels)")
    return figure


def draw_calibration(answers: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Reliability diagram: in each bin of confidence, how often the model was right.

    Args:
        answers: Title of a line -> confidences, and whether each answer was right, bool; both of shape N.
    """
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for title, (confidence_N, right_N) in answers.items():
        bin_N = (confidence_N * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        # A bin of a few examples shows chance, not calibration.
        filled = [bin_ for bin_ in range(CALIBRATION_BINS) if (bin_N == bin_).sum() >= LEAST_IN_A_BIN]
        confidence = [confidence_N[bin_N == bin_].mean().item() for bin_ in filled]
        accuracy = [right_N[bin_N == bin_].double().mean().item() for bin_ in filled]
        axes.plot(confidence, accuracy, marker="o", markersize=4, label=title)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="Calibration on the test set")
    axes.legend()
    return figure
