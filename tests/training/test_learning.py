"""Every architecture learns a small real problem. Axes: N, C, H, W."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.manifest import ImageDecoding
from tests.training.small import silent
from tests.verdicts import VERDICTS, sentence
from training.architectures.catalogue import IMAGES, TEXTS, image_network
from training.checkpoint import Checkpoint
from training.classifier import channel_statistics
from training.commands import ImageFolderOptions, TextTableOptions
from training.datasets import fashion_mnist
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.labelled_texts import LabelledText
from training.distributed import Group
from training.randomness import seed_here
from training.recipes import own_texts
from training.tasks.images import ImageClassification
from training.tasks.texts import TextDataset
from training.train import train

# Trousers, bags and boots.
SOME = (1, 8, 9)


@pytest.fixture(scope="module")
def clothes() -> ImageDataset:
    """Photographs of three kinds of clothing, in colour and of 32 pixels a side, as most networks want them."""
    whole = fashion_mnist.load(None, validation_fraction=0.1, seed=0, limit=1500)

    def some(images: LabelledImages, most: int) -> LabelledImages:
        kept_N = torch.isin(images.labels_N, torch.tensor(SOME)).nonzero().squeeze(1)[:most]
        grey_NCHW = nn.functional.pad(images.images_NCHW[kept_N], (2, 2, 2, 2))
        return LabelledImages(
            grey_NCHW.expand(-1, 3, -1, -1).contiguous(),
            torch.searchsorted(torch.tensor(SOME), images.labels_N[kept_N]),
        )

    labels = tuple(fashion_mnist.LABELS[index] for index in SOME)
    return ImageDataset(labels, some(whole.train, 256), some(whole.validation, 128), some(whole.test, 1), "0" * 64)


# EfficientNet-Lite0 wants more steps than a test has: `test_foreign_models` trains it from its weights on.
@pytest.mark.parametrize("arch", sorted(IMAGES.keys() - {"efficientnet_lite0"} | {"resnet18"}))
def test_every_architecture_for_images_learns(tmp_path: Path, clothes: ImageDataset, arch: str) -> None:
    given = ImageFolderOptions(name="small", data=tmp_path, arch=arch, epochs=4, batch_size=16, precision="fp32")
    seed_here(0, "weights")
    network = image_network((3, 32, 32), len(SOME), given)
    decoding = ImageDecoding(color="RGB", size=(32, 32), max_pixels=10_000)
    task = ImageClassification(clothes, network, *channel_statistics(clothes.train.images_NCHW), decoding, given)
    found = train(task, given, Group(), Checkpoint(tmp_path, "identity"), silent())
    # By chance it would be a third.
    assert max(epoch.validation_score for epoch in found.history) > 0.9


def sentences(count: int, seed: int) -> list[LabelledText]:
    chance = random.Random(seed)  # noqa: S311 (no secret is made of it)
    return [LabelledText(sentence(chance, VERDICTS[number % 2]), number % 2) for number in range(count)]


@pytest.mark.parametrize("arch", TEXTS)
def test_every_architecture_for_texts_learns(tmp_path: Path, arch: str) -> None:
    given = TextTableOptions(
        name="small", data=tmp_path, arch=arch, epochs=8, batch_size=16, learning_rate=0.005, dim=16,
        hidden_size=16, precision="fp32",
    )  # fmt: skip
    dataset = TextDataset(VERDICTS, sentences(256, 0), sentences(128, 1), sentences(8, 2), "0" * 64)
    task: Any = own_texts.build(dataset, given, silent())
    found = train(task, given, Group(), Checkpoint(tmp_path, "identity"), silent())
    assert max(epoch.validation_score for epoch in found.history) > 0.95
