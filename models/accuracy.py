"""How accurate a backend was found to be, and how accurate it has to be."""

from typing import Annotated, Self

from pydantic import Field
from pydantic import model_validator as validator_of_model

from models.part import Part, Sha256, UnitInterval


class Accuracy(Part):
    """What a backend is worth beside the TorchScript one, measured on held-out examples when it was published.

    Attributes:
        examples: How many.
        top1_agreement: On how many of them its best label is TorchScript's.
        metric: Its accuracy, where the labels are known.
        metric_loss: How much less that is than TorchScript's; negative if it is more.
        data_sha256: Of the examples, as the model takes them.
    """

    examples: Annotated[int, Field(ge=1)]
    top1_agreement: UnitInterval
    metric: UnitInterval | None = None
    metric_loss: Annotated[float, Field(ge=-1, le=1)] | None = None
    data_sha256: Sha256 | None = None

    @validator_of_model(mode="after")
    def _loss_goes_with_metric(self) -> Self:
        if (self.metric is None) != (self.metric_loss is None):
            raise ValueError("metric_loss goes with metric: both or neither")
        return self


class AccuracyLimits(Part):
    """How much less a backend may be worth than the TorchScript one, to be in the bundle at all."""

    max_metric_loss: UnitInterval = 0.005
    min_top1_agreement: UnitInterval = 0.98

    def refusal(self, accuracy: Accuracy) -> str | None:
        """Say why a backend may not be in the bundle, if it may not."""
        agreement, loss = accuracy.top1_agreement, accuracy.metric_loss
        if agreement < self.min_top1_agreement:
            wanted = f"{self.min_top1_agreement:.2%} is wanted"
            return f"top-1 agrees on {agreement:.2%} of {accuracy.examples} examples; {wanted}"
        if loss is not None and loss > self.max_metric_loss:
            return f"accuracy falls by {100 * loss:.2f} points; {100 * self.max_metric_loss:.2f} are allowed"
        return None
