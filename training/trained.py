"""What a training came to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import nn


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training examples came to; `validation_score` is the task's metric."""

    train_loss: float
    train_score: float
    validation_loss: float
    validation_score: float
    learning_rate: float
    elapsed_s: float


@dataclass(frozen=True)
class Trained:
    """How the model came to its weights.

    Attributes:
        history: An entry an epoch.
        best_epoch: The one whose weights were kept, counted from 0.
        precision: Of the steps.
        parameters: Number of those that were trained.
        examples: How many gave a gradient, each as often as it did.
        elapsed_s: Seconds of training and validation.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    precision: str
    parameters: int
    examples: int
    elapsed_s: float

    def summary(self) -> dict[str, object]:
        """The history as plain values, for the report."""
        return asdict(self)


def joined(phases: Sequence[Trained]) -> Trained:
    """Return phases, each begun where the one before ended, as one training; the last one's best counts."""
    last, before_s = phases[-1], 0.0
    history: list[Epoch] = []
    for phase in phases:
        history += [replace(epoch, elapsed_s=before_s + epoch.elapsed_s) for epoch in phase.history]
        before_s += phase.elapsed_s
    best_epoch = len(history) - len(last.history) + last.best_epoch
    examples = sum(phase.examples for phase in phases)
    return replace(last, history=tuple(history), best_epoch=best_epoch, examples=examples, elapsed_s=before_s)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
