"""A small real problem for the training loop: noise with a bright half. Axes: N, C, H, W."""

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.manifest import ImageDecoding
from training.architectures.convolutional import ConvNet
from training.checkpoint import Checkpoint
from training.classifier import channel_statistics
from training.config import ImageOptions
from training.datasets.images import ImageDataset, LabelledImages
from training.distributed import Group
from training.progress import Progress
from training.randomness import seed_here
from training.tasks.images import ImageClassification
from training.train import train
from training.trained import Trained

State = dict[str, Tensor]

DECODING = ImageDecoding(color="L", size=(12, 12), max_pixels=10_000)


def striped(count: int, seed: int) -> LabelledImages:
    """The upper half is bright in label 0, the lower in label 1. Mirroring changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    images_NCHW = torch.randint(0, 100, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    labels_N = torch.arange(count) % 2
    images_NCHW[labels_N == 0, :, :6] += 100
    images_NCHW[labels_N == 1, :, 6:] += 100
    return LabelledImages(images_NCHW, labels_N)


def dataset() -> ImageDataset:
    return ImageDataset(("up", "down"), striped(256, 0), striped(64, 1), striped(64, 2), "0" * 64)


def options(**changes: Any) -> ImageOptions:
    fields: dict[str, Any] = {"name": "small", "arch": "convnet", "epochs": 3, "batch_size": 32}
    return ImageOptions(**fields | {"precision": "fp32", "learning_rate": 0.01} | changes)


def task(given: ImageOptions, data: ImageDataset | None = None) -> ImageClassification:
    data = data or dataset()
    seed_here(given.seed, "weights")
    network = ConvNet((1, 12, 12), 8, 2, widths=(4, 6, 8))
    return ImageClassification(data, network, *channel_statistics(data.train.images_NCHW), DECODING, given)


def trained(directory: Path, small: ImageClassification, given: ImageOptions) -> Trained:
    return train(small, given, Group(), Checkpoint(directory, "identity"), silent())


def silent() -> Progress:
    return Progress(io.StringIO(), silent=True)


def state_of(small: ImageClassification) -> State:
    return copy.deepcopy(dict(small.model.state_dict()))


def same(first: State, second: State) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)
