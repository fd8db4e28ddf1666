"""A training run as a whole, on a small data set of its own: nothing is chosen on the test set."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from models.repository import Repository
from training import run as module
from training.config import TrainingConfig
from training.datasets import fashion_mnist
from training.datasets.images import ImageDataset, LabelledImages
from training.progress import Progress


def dataset(test_labels_N: torch.Tensor) -> ImageDataset:
    """Ten shades of grey, each its own label."""

    def images(count: int, labels_N: torch.Tensor | None = None) -> LabelledImages:
        shades_N = torch.arange(count) % 10
        images_NCHW = (shades_N * 25)[:, None, None, None].expand(-1, 1, 28, 28).to(torch.uint8).contiguous()
        return LabelledImages(images_NCHW, shades_N if labels_N is None else labels_N)

    return ImageDataset(
        fashion_mnist.LABELS, images(320), images(80), images(len(test_labels_N), test_labels_N), "0" * 64
    )


def trained_on(data: ImageDataset, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(fashion_mnist, "load", lambda *_: data)
    options: dict[str, Any] = {"models_dir": root, "epochs": 1, "batch_size": 32, "precision": "fp32"}
    module.run(TrainingConfig(min_accuracy=0.0, **options), Progress(1, io.StringIO()))
    return Repository(root).open("fashion")


def test_scrambled_test_labels_change_the_figures_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right_N = torch.arange(100) % 10
    plain = trained_on(dataset(right_N), tmp_path / "plain", monkeypatch)
    scrambled = trained_on(dataset((right_N + 1) % 10), tmp_path / "scrambled", monkeypatch)
    assert plain.manifest.metrics["test_accuracy"] != scrambled.manifest.metrics["test_accuracy"]
    assert plain.manifest.postprocess == scrambled.manifest.postprocess
    scores = [[golden.scores for golden in bundle.manifest.golden] for bundle in (plain, scrambled)]
    assert scores[0] == scores[1]
