"""One combination of a grid: trained, exported and measured like any model, but never published."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import Checkpoint
from training.compare.budget import check_budget
from training.compare.comparison import Result
from training.compare.latency import latency_ms
from training.config import TrainingOptions
from training.distributed import Group
from training.export import Exported, script
from training.gate import check_parity
from training.progress import Progress
from training.tasks.task import Task
from training.train import train
from training.trained import Trained, joined

CPU = torch.device("cpu")


class NoCheckpoint(Checkpoint):
    """Keeps nothing: a combination is as soon trained again, and its budget is for training."""

    def __init__(self) -> None:
        super().__init__(Path(), "")

    def save(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def load(self) -> None:
        """Return nothing."""


def measure(task: Task, options: TrainingOptions, device: torch.device) -> Result:
    """Train a copy of the task's model, and measure what would be published.

    Args:
        task: On the CPU, its model untrained; it stays so.
        options: The combination's, resolved.
        device: To train on, and to measure the latency on.

    Raises:
        OptionInvalid: The budget has no room for a step.
        Diverged: The loss is no number, and never was one.
        GateFailed: It cannot be exported faithfully.
    """
    task = copy.copy(task)
    task.model = copy.deepcopy(task.model)
    task.to(device)
    check_budget(task, options, device)
    trained = _train(task, options)
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
        epochs=trained.examples / task.train_size,
        parameters=trained.parameters,
        learning_rate=options.learning_rate,
        precision=trained.precision,
        latency_1_ms=latency_ms(exported, inputs, 1, device),
        latency_32_ms=latency_ms(exported, inputs, 32, device),
        curve=tuple((epoch.elapsed_s, epoch.validation_score) for epoch in trained.history),
        data_sha256=task.data_sha256,
        examples=dict(task.sizes()),
    )


def _train(task: Task, options: TrainingOptions) -> Trained:
    phases, silent = task.phases(), Progress(silent=True)
    trained = []
    for phase in phases:
        phase.begin()
        trained.append(train(task, phase.options(options, len(phases)), Group(), NoCheckpoint(), silent))
    return joined(trained)
