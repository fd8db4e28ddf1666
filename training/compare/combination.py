"""One combination of a grid: trained, exported and measured like any model, but never published."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import Checkpoint
from training.compare.budget import check_budget
from training.compare.comparison import Result
from training.compare.latency import latency_ms
from training.config import FULL_BATCH, TrainingOptions
from training.distributed import Group
from training.errors import GateFailed
from training.export import Exported, script
from training.gate import check_parity
from training.progress import Progress
from training.state import Trained, joined
from training.tasks.task import Task
from training.train import train

CPU = torch.device("cpu")


class NoCheckpoint(Checkpoint):
    """Keeps nothing: a combination is as soon trained again, and its budget is for training."""

    def __init__(self) -> None:
        super().__init__(Path(), "")

    def save(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def load(self) -> None:
        """Return nothing."""


class StepCount(Progress):
    """Counts the steps, and says nothing."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.total = 0

    def step(self, means: Tensor) -> None:  # noqa: ARG002 (the loop tells them)
        """Count a step."""
        self.total += 1


def measure(task: Task, options: TrainingOptions, device: torch.device) -> Result:
    """Train a copy of the task's model, and measure what would be published.

    Args:
        task: On the CPU, its model untrained; it stays so.
        options: The combination's, resolved.
        device: To train on, and to measure the latency on.

    Raises:
        OptionInvalid: The budget has no room for a step.
        GateFailed: It diverged, or cannot be exported faithfully.
    """
    task = copy.copy(task)
    task.model = copy.deepcopy(task.model)
    task.to(device)
    check_budget(task, options, device)
    steps = StepCount()
    trained = _train(task, options, steps)
    _check_converged(trained)
    task.to(CPU)
    task.calibrate()
    exported = Exported(script(task.model))
    inputs = task.parity_batch()
    check_parity(task.model, exported, inputs)
    test = dict(task.judge(exported).metrics)
    exported.freeze(device)
    kept = trained.history[trained.best_epoch]
    return Result(
        metric=task.metric,
        validation=kept.validation_score,
        validation_loss=kept.validation_loss,
        test=test,
        training_s=trained.elapsed_s,
        epochs=_epochs(steps.total, task.train_size, options),
        parameters=trained.parameters,
        learning_rate=options.learning_rate,
        precision=trained.precision,
        latency_1_ms=latency_ms(exported, inputs, 1, device),
        latency_32_ms=latency_ms(exported, inputs, 32, device),
        curve=tuple((epoch.elapsed_s, epoch.validation_score) for epoch in trained.history),
        data_sha256=task.data_sha256,
        examples=dict(task.sizes()),
    )


def _train(task: Task, options: TrainingOptions, steps: StepCount) -> Trained:
    phases = task.phases()
    trained = []
    for phase in phases:
        phase.begin()
        trained.append(train(task, phase.options(options, len(phases)), Group(), NoCheckpoint(), steps))
    return joined(trained)


def _check_converged(trained: Trained) -> None:
    kept = trained.history[trained.best_epoch]
    if not math.isfinite(kept.validation_loss):
        raise GateFailed(f"diverged: the validation loss became {kept.validation_loss}")


def _epochs(steps: int, train_size: int, options: TrainingOptions) -> float:
    if options.optimizer in FULL_BATCH:
        return float(steps)
    return steps * min(1.0, options.batch_size / train_size)
