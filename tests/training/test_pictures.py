"""Pictures are drawn whatever the labels are called; a report that cannot be drawn would cost a whole training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.evaluate import Answers, evaluate
from training.pictures import draw_calibration, draw_confusion
from training.report import Report, write_report

PNG_MAGIC = b"\x89PNG"


def answers(K: int) -> Answers:
    return Answers.of(torch.eye(K) * 0.5 + 0.5 / K, torch.arange(K))


@pytest.mark.parametrize("label", ["$$", "$5 to $10", r"$\nothing$", "{", "100 %", "a_b^c", "<b>"])
def test_a_label_is_text_and_never_a_formula(tmp_path: Path, label: str) -> None:
    figure = draw_confusion(evaluate(answers(3), ("plain", label, "$")))
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["plain", label, "$"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["plain", label, "$"]
    write_report(tmp_path, Report("title", "table", {}, {"confusion_matrix": figure}))
    assert (tmp_path / "report/confusion_matrix.png").read_bytes().startswith(PNG_MAGIC)


def test_a_cell_holds_its_count() -> None:
    wrong = Answers.of(torch.tensor([[0.2, 0.8], [0.3, 0.7], [0.9, 0.1]]), torch.tensor([0, 1, 0]))
    axes = draw_confusion(evaluate(wrong, ("a", "b"))).axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "1"),
        ((1, 0), "1"),
        ((1, 1), "1"),
    }


def test_calibration_shows_confidence_and_accuracy_of_bins_that_are_filled() -> None:
    probabilities_NK = torch.tensor([[0.9, 0.1]] * 40 + [[0.6, 0.4]] * 3)
    labels_N = torch.tensor([0] * 30 + [1] * 10 + [0] * 3)
    confidence_N, predicted_N = probabilities_NK.max(1)
    axes = draw_calibration({"after": (confidence_N, predicted_N == labels_N)}).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "after")
    assert np.asarray(line.get_xydata()).tolist() == [[pytest.approx(0.9), pytest.approx(0.75)]]
