"""What a run needs of a task; every kind of learning goes through the same loop, gate and publication."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from models.manifest import Calibration
from models.preparation import Preparation
from training.config import TrainingOptions
from training.export import Exported
from training.optimizing.sample import Sample


@dataclass(frozen=True)
class Mistake:
    """A test example that the exported file got wrong, with how sure it was."""

    content: bytes
    expected: str
    predicted: str
    score: float


@dataclass(frozen=True)
class Judgement:
    """What the exported file is worth on the test set.

    Attributes:
        metrics: For the manifest; the first is the one that a gate compares.
        figures: For report.json.
        table: For a person at a terminal.
        pictures: File name without its ending -> picture.
        mistakes: The worst first.
        calibration: Before and after what was fitted, if anything was.
        doubts: What a person should know before relying on it, a line each.
    """

    metrics: Mapping[str, float]
    figures: Mapping[str, Any]
    table: str
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    calibration: Calibration | None = None
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Phase:
    """A part of a run: `begin` settles what is trained in it, over `epochs` (None: what the options say)."""

    name: str
    begin: Callable[[], None]
    epochs: int | None = None

    def options(self, given: TrainingOptions, phases: int) -> TrainingOptions:
        """Return the options of this one of so many phases; a limit on the run's time is shared equally."""
        epochs = given.epochs if self.epochs is None else self.epochs
        budget_s = None if given.budget_s is None else given.budget_s / phases
        return given.model_copy(update={"epochs": epochs, "budget_s": budget_s})


def all_at_once() -> Sequence[Phase]:
    """Return the one phase of a task that trains everything from the start."""
    return (Phase("all", lambda: None),)


class Task(Protocol):
    """Data and a model, and what it means to learn the one with the other.

    Attributes:
        model: What is trained and exported: raw batches in, answers out.
        train_size: Number of training examples.
        metric: Name of what `validate` measures; the larger the better.
        preparation: How raw inputs become a batch, in evaluation as in serving.
        data_sha256: Of the data.
    """

    model: nn.Module
    train_size: int
    metric: str
    preparation: Preparation
    data_sha256: str

    def phases(self) -> Sequence["Phase"]:
        """Return what is trained one after the other; of most tasks, everything at once."""
        ...

    def rate(self, parameter: str) -> float:
        """Return the share of the learning rate that a parameter takes."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the model, and what of the data is to be there, to a device."""
        ...

    def batches(self, order_N: Tensor, batch_size: int) -> Sequence[Tensor]:
        """Cut an order of the training examples into batches of indices."""
        ...

    def weight(self, indices_N: Tensor) -> float:
        """Return by what a batch's summed loss is divided."""
        ...

    def loss(self, model: nn.Module, indices_N: Tensor, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return the summed loss of training examples, and how much of their weight was right."""
        ...

    def validate(self, model: nn.Module) -> tuple[float, float]:
        """Return loss and metric on the validation part, in evaluation mode."""
        ...

    def calibrate(self) -> None:
        """Make the model's confidence match its accuracy, on the validation part."""
        ...

    def parity_batch(self) -> Tensor:
        """Return raw test examples as one batch, for the exported file to be compared on."""
        ...

    def judge(self, exported: Exported) -> Judgement:
        """Measure the exported file on the test part; raise GateFailed if it is not good enough."""
        ...

    def golden_inputs(self) -> Mapping[str, bytes]:
        """Return a few raw test inputs, by the file names they shall have."""
        ...

    def description(self) -> Mapping[str, Any]:
        """Return the manifest's fields that say what the model takes and gives."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Return what the bundle needs besides the exported model."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Return the number of examples of each part."""
        ...

    def sample(self) -> Sample | None:
        """Return what other forms of the model are judged by; None if there can be none."""
        ...
