"""Labelled images held in memory, and how they are split."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """Images and what they show.

    Attributes:
        images_NCHW: uint8, 0 to 255.
        labels_N: int64, an index into the data set's labels.
    """

    images_NCHW: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, indices_N: Tensor) -> "LabelledImages":
        """Return the images at these indices, in their order."""
        return LabelledImages(self.images_NCHW[indices_N], self.labels_N[indices_N])

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the same images on `device`."""
        return LabelledImages(self.images_NCHW.to(device), self.labels_N.to(device))


@dataclass(frozen=True)
class ImageDataset:
    """A data set with its three parts; `test` is never used for choosing weights."""

    labels: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    sha256: str


def split(images: LabelledImages, held_out_fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split at random, the same way for the same seed.

    Returns:
        The larger part, and the held-out part: at least one image each.
    """
    order_N = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = min(max(1, round(len(images) * held_out_fraction)), len(images) - 1)
    return images.take(order_N[held_out:]), images.take(order_N[:held_out])
