"""What image and text classification share. Axes: N examples, K labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from models.manifest import Calibration, TensorSpec
from models.preparation import Preparation
from training.calibrate import fit_temperature
from training.classifier import CalibratedModel
from training.errors import GateFailed
from training.evaluate import CALIBRATION_BINS, Answers, Evaluation, evaluate, format_table
from training.export import Exported
from training.pictures import draw_calibration, draw_confusion
from training.tasks.task import Judgement, Mistake, Phase, all_at_once

GOLDEN_EXAMPLES = 4
PARITY_SAMPLES = 256
MOST_MISTAKES = 24
JUDGED_AT_ONCE = 256


class ClassificationTask(ABC):
    """Examples with one label each."""

    metric = "accuracy"
    model: nn.Module
    preparation: Preparation
    labels: tuple[str, ...]
    train_size: int
    data_sha256: str
    least_accuracy: float

    @property
    def temperature(self) -> Tensor:
        """By what the model's logits are divided; a buffer of its graph."""
        return self._calibrated.temperature

    @property
    def _calibrated(self) -> CalibratedModel:
        assert isinstance(self.model, CalibratedModel)  # noqa: S101 (every task's model is one)
        return self.model

    @abstractmethod
    def test_content(self, index: int) -> bytes:
        """Return a test example as a client would send it."""

    @abstractmethod
    def test_labels(self) -> Tensor:
        """Return the test part's labels, int64 of shape N."""

    @abstractmethod
    def validation_logits(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the validation part's logits NK in evaluation mode, and its labels N."""

    @abstractmethod
    def golden_name(self, index: int) -> str:
        """Return the file name of a golden input."""

    def phases(self) -> Sequence[Phase]:
        """Everything is trained from the start."""
        return all_at_once()

    def rate(self, parameter: str) -> float:  # noqa: ARG002 (all alike)
        """Every parameter takes the whole learning rate."""
        return 1.0

    def weight(self, indices_N: Tensor) -> float:
        """Every example counts the same."""
        return float(len(indices_N))

    def validate(self, model: nn.Module) -> tuple[float, float]:
        """Return cross entropy and accuracy on the validation part."""
        logits_NK, labels_N = self.validation_logits(model)
        accuracy = (logits_NK.argmax(1) == labels_N).double().mean().item()
        return F.cross_entropy(logits_NK, labels_N).item(), accuracy

    def calibrate(self) -> None:
        """Fit the temperature on the validation part."""
        with torch.inference_mode():
            logits_NK, labels_N = self.validation_logits(self.model.eval())
        self.temperature.fill_(fit_temperature(logits_NK.clone(), labels_N.clone()))

    def parity_batch(self) -> Tensor:
        """Return test examples as one batch, repeated if there are few."""
        return self._test_batch([index % len(self.test_labels()) for index in range(PARITY_SAMPLES)])

    def judge(self, exported: Exported) -> Judgement:
        """Measure the file on the test part, from what a client would send to the scores it would get.

        Raises:
            GateFailed: Its accuracy is below `least_accuracy`.
        """
        uncalibrated, calibrated = self._answers(exported)
        after = evaluate(calibrated, self.labels)
        if not after.accuracy >= self.least_accuracy:
            raise GateFailed(
                f"accuracy: {after.accuracy:.2%} on the test set, through the exported file; "
                f"--min-accuracy is {self.least_accuracy:.2%}"
            )
        before = evaluate(uncalibrated, self.labels)
        return Judgement(
            metrics={
                "test_accuracy": after.accuracy,
                "test_macro_f1": after.macro_f1,
                "test_nll": after.nll,
                "test_ece": after.ece,
            },
            figures={
                "test": after.summary(),
                "test_before_calibration": before.summary(),
                "temperature": self.temperature.item(),
            },
            table=_table(before, after),
            pictures=_pictures(after, {"before": uncalibrated, "after": calibrated}),
            mistakes=self._worst(calibrated),
            calibration=Calibration(
                bins=CALIBRATION_BINS,
                ece_before=before.ece,
                ece_after=after.ece,
                nll_before=before.nll,
                nll_after=after.nll,
            ),
            doubts=_doubts(after),
        )

    def _answers(self, exported: Exported) -> tuple[Answers, Answers]:
        """Return what the model says of the test part before calibration, and what the file says after it.

        The file's scores cannot tell what lay before its temperature: a low one has made zeros of most of them.
        """
        labels_N = self.test_labels()
        model = self._calibrated.eval()
        before, after = list[Answers](), list[Answers]()
        for part_N in torch.arange(len(labels_N)).split(JUDGED_AT_ONCE):
            batch = self._test_batch(part_N.tolist())
            with torch.inference_mode():
                uncalibrated_NK = model.logits(batch).softmax(1)
            before.append(Answers.of(uncalibrated_NK, labels_N[part_N]))
            after.append(Answers.of(exported.scores(batch), labels_N[part_N]))
        return Answers.joined(before), Answers.joined(after)

    def golden_inputs(self) -> Mapping[str, bytes]:
        """Return the first few test examples."""
        count = min(GOLDEN_EXAMPLES, len(self.test_labels()))
        return {self.golden_name(index): self.test_content(index) for index in range(count)}

    def score_spec(self) -> TensorSpec:
        """Return the manifest's entry for the scores."""
        return TensorSpec(name="scores", dtype="float32", shape=("N", len(self.labels)))

    def _test_batch(self, indices: Sequence[int]) -> Tensor:
        return self.preparation.collate([self.preparation.prepare(self.test_content(index)) for index in indices])

    def _worst(self, answers: Answers) -> list[Mistake]:
        wrong = (~answers.right_N).nonzero().squeeze(1)
        surest = wrong[answers.confidence_N[wrong].argsort(descending=True)][:MOST_MISTAKES].tolist()
        return [
            Mistake(
                self.test_content(index),
                expected=self.labels[int(answers.labels_N[index])],
                predicted=self.labels[int(answers.predicted_N[index])],
                score=answers.confidence_N[index].item(),
            )
            for index in surest
        ]


def _doubts(evaluation: Evaluation) -> Sequence[str]:
    commonest = max(evaluation.per_label, key=lambda row: row.support)
    share = commonest.support / sum(row.support for row in evaluation.per_label)
    if evaluation.accuracy > share:
        return ()
    return (
        f"it is no better than always answering {commonest.label!r} would be ({share:.2%}): "
        "it wants more examples, more --epochs or another --arch or --learning-rate",
    )


def _pictures(evaluation: Evaluation, answers: Mapping[str, Answers]) -> dict[str, Figure]:
    pictures = {"confusion_matrix": draw_confusion(evaluation)} if evaluation.confusion else {}
    shown = {title: (given.confidence_N, given.right_N) for title, given in answers.items()}
    return {**pictures, "calibration": draw_calibration(shown)}


def _table(before: Evaluation, after: Evaluation) -> str:
    return (
        f"{format_table(after)}\n"
        f"test accuracy {after.accuracy:.2%}, macro F1 {after.macro_f1:.4f}, "
        f"ECE {before.ece:.4f} -> {after.ece:.4f}, NLL {before.nll:.4f} -> {after.nll:.4f}"
    )


def description_of(spec: TensorSpec, outputs: TensorSpec, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (mixed)
    """Return the manifest's fields of a task with one input and one output."""
    return {"inputs": (spec,), "outputs": (outputs,), **fields}
