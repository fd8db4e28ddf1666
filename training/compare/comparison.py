"""A comparison: which combinations of architecture and optimizer were trained, and what each came to."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from training.machine import Machine


class Frozen(BaseModel):
    """Plain values that do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(Frozen):
    """What one combination came to.

    Attributes:
        metric: Name of `validation`; the larger the better.
        validation: Of the epoch that was kept.
        test: Through the exported file; the first is the one that a gate compares.
        epochs: Passes over the training examples, of which L-BFGS makes many a step; a budget may end within one.
        latency_1_ms: Median of one item through the exported file.
        latency_32_ms: Median of a batch of 32.
        curve: Seconds of training and validation metric, after each epoch.
        examples: Part -> number of examples.
    """

    metric: str
    validation: float
    validation_loss: float
    test: dict[str, float]
    training_s: float
    epochs: float
    parameters: int
    learning_rate: float
    precision: str
    latency_1_ms: float
    latency_32_ms: float
    curve: tuple[tuple[float, float], ...]
    data_sha256: str
    examples: dict[str, int]


class Combination(Frozen):
    """An architecture with an optimizer: what it came to, or why it came to nothing."""

    arch: str
    optimizer: str
    result: Result | None = None
    failed: str | None = None


class Comparison(Frozen):
    """What is known so far of a grid.

    Attributes:
        planned: Number of combinations that the whole grid has.
        budget_s: Training time of each.
        options: The recipe's that were given, for all combinations.
    """

    format: Literal[1] = 1
    recipe: str
    planned: int
    budget_s: float
    seed: int
    options: dict[str, object]
    machine: Machine
    combinations: tuple[Combination, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every combination was tried."""
        return len(self.combinations) == self.planned

    def finished(self) -> list[tuple[Combination, Result]]:
        """Return the combinations that came to something, best on the validation part first."""
        found = [(each, each.result) for each in self.combinations if each.result is not None]
        return sorted(found, key=lambda pair: (-pair[1].validation, pair[1].validation_loss))

    def failures(self) -> Sequence[Combination]:
        """Return those that came to nothing."""
        return [each for each in self.combinations if each.result is None]

    def joined_by(self, combination: Combination) -> "Comparison":
        """Return the comparison with one more."""
        return self.model_copy(update={"combinations": (*self.combinations, combination)})
