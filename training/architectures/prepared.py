"""A network together with the preprocessing that its weights were trained with."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.manifest import ImageDecoding


@dataclass(frozen=True)
class Prepared:
    """What a classifier is made of.

    Attributes:
        network: Normalised images of shape NCHW -> logits of shape NK; it scripts.
        mean_C: float, for pixels scaled to 0..1.
        std_C: float, likewise.
        decoding: How image files become the uint8 images.
    """

    network: nn.Module
    mean_C: Tensor
    std_C: Tensor
    decoding: ImageDecoding
