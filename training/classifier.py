"""A network with what makes it a classifier: raw batches in, probabilities out. Axes: N, C, H, W, L, K."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.committee import Committee

IMAGES_AT_ONCE = 1024


class CalibratedModel(nn.Module, ABC):
    """A graph that ends in probabilities: logits over a temperature, which is saved with the weights."""

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    @abstractmethod
    def logits(self, batch: Tensor, /) -> Tensor:
        """Return the uncalibrated logits, float of shape NK, for a batch as the graph takes it."""


class TextClassifier(CalibratedModel):
    """The whole graph that is exported: token ids in, calibrated probabilities out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def member_logits(self, tokens_NL: Tensor) -> Tensor:
        """Return the logits of each network that learns from its own loss, of shape PNK; of most, there is one."""
        if isinstance(self.network, Committee):
            return self.network.member_logits(tokens_NL).float()
        return self.logits(tokens_NL)[None]

    def logits(self, tokens_NL: Tensor) -> Tensor:
        """Return the uncalibrated logits of shape NK for int64 token ids, padded with 0."""
        logits_NK: Tensor = self.network(tokens_NL)
        return logits_NK.float()

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify texts.

        Args:
            tokens_NL: int64 token ids, padded with 0.

        Returns:
            float32 calibrated probabilities of shape NK; rows sum to 1.
        """
        return F.softmax(self.logits(tokens_NL) / self.temperature, dim=1)


class Classifier(CalibratedModel):
    """The whole graph that is exported: uint8 images in, calibrated probabilities out.

    Normalisation and temperature are buffers, so they are saved with the weights and stand nowhere else.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, network: nn.Module, mean_C: Tensor, std_C: Tensor) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean_C11", mean_C.float().view(-1, 1, 1))
        self.register_buffer("std_C11", std_C.float().view(-1, 1, 1))

    def logits(self, images_NCHW: Tensor) -> Tensor:
        """Return the uncalibrated logits of shape NK for uint8 images."""
        normalised_NCHW = (images_NCHW.float() / 255 - self.mean_C11) / self.std_C11
        logits_NK: Tensor = self.network(normalised_NCHW.contiguous(memory_format=torch.channels_last))
        return logits_NK.float()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Classify images.

        Args:
            images_NCHW: uint8, 0 to 255.

        Returns:
            float32 calibrated probabilities of shape NK; rows sum to 1.
        """
        return F.softmax(self.logits(images_NCHW) / self.temperature, dim=1)


def channel_statistics(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of uint8 images, both of shape C, scaled to 0..1."""
    # A histogram a channel is exact; of a part at a time, because a channel is counted from a copy of its own.
    levels = torch.arange(256, dtype=torch.float64) / 255
    parts = images_NCHW.split(IMAGES_AT_ONCE)
    counts_CL = torch.stack([_histograms(part_NCHW) for part_NCHW in parts]).sum(0)
    shares_CL = counts_CL.double() / counts_CL[0].sum()
    mean_C = shares_CL @ levels
    variance_C = shares_CL @ levels.square() - mean_C.square()
    # An all-equal channel carries nothing; dividing by a level keeps it finite.
    return mean_C.float(), variance_C.clamp(min=1 / 255**2).sqrt().float()


def _histograms(images_NCHW: Tensor) -> Tensor:
    """Return how often each of the 256 levels occurs in each channel, int64 of shape CL."""
    channels = images_NCHW.unbind(1)
    return torch.stack([torch.bincount(channel_NHW.flatten(), minlength=256) for channel_NHW in channels])
