"""Small real bundles: TorchScript models whose answers are known without training."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.bundle import Bundle, describe_all
from models.manifest import (
    Backend,
    BuiltWith,
    GoldenExample,
    ImageDecoding,
    Limits,
    Manifest,
    Postprocess,
    Source,
    TensorSpec,
    Tolerance,
)
from models.preprocessing import decode_image
from models.repository import Repository, Staging
from tests.images import png
from training.export import Exported, script

LABELS = ("dark", "grey", "light")
MAX_PIXELS = 1_000_000


class Shades(nn.Module):
    """Tells dark from grey from light: each label's score falls with the distance from its brightness."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.float().mean(dim=(1, 2, 3)).unsqueeze(1) / 255
        centres_1K = torch.tensor([[0.0, 0.5, 1.0]], device=images_NCHW.device)
        return torch.softmax(-20 * (brightness_N1 - centres_1K).square(), dim=1)


class Always(nn.Module):
    """Says the same label whatever it is shown; a second version that can be told from the first."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, images_NCHW: Tensor) -> Tensor:
        scores_NK = torch.zeros(images_NCHW.shape[0], 3, device=images_NCHW.device)
        scores_NK[:, self.index] = 1.0
        return scores_NK


def decoding(**changes: Any) -> ImageDecoding:
    return ImageDecoding.model_validate({"color": "L", "size": (8, 8), "max_pixels": MAX_PIXELS} | changes)


def publish(
    repository: Repository,
    name: str,
    module: nn.Module | None = None,
    labels: Sequence[str] = LABELS,
    **changes: Any,
) -> Bundle:
    """Publish the next version of a model; `changes` replace fields of its manifest."""
    with repository.staging(name) as staging:
        stage(staging, name, module or Shades(), labels, **changes)
        return repository.publish(name, staging)


def stage(staging: Staging, name: str, module: nn.Module, labels: Sequence[str] = LABELS, **changes: Any) -> None:
    content = script(module)
    (staging.directory / "model.ts.pt").write_bytes(content)
    decode = changes.get("decode", decoding())
    golden = write_golden(staging.directory, Exported(content), decode)
    staging.write_manifest(manifest(staging, name, labels, **{"golden": golden} | changes))


def write_golden(directory: Path, exported: Exported, decode: ImageDecoding) -> tuple[GoldenExample, ...]:
    (directory / "golden").mkdir()
    content = png(200, size=(8, 8))
    (directory / "golden/0.png").write_bytes(content)
    scores_K = exported.scores(decode_image(content, decode).unsqueeze(0))[0]
    return (GoldenExample(file="golden/0.png", scores=tuple(scores_K.tolist())),)


def manifest(
    staging: Staging, name: str, labels: Sequence[str], golden: tuple[GoldenExample, ...], **changes: Any
) -> Manifest:
    decode: ImageDecoding = changes.get("decode", decoding())
    fields: dict[str, Any] = {
        "name": name,
        "version": staging.version,
        "created_at": datetime.now(UTC),
        "task": "image-classification",
        "source": Source(git=None, config={}, data_sha256="0" * 64),
        "built_with": BuiltWith(torch="2", torchvision="0", python="3"),
        "files": describe_all(staging.directory),
        "inputs": (TensorSpec(name="images", dtype="uint8", shape=("N", *decode.shape_CHW)),),
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=("N", len(labels))),),
        "decode": decode,
        "labels": tuple(labels),
        "postprocess": Postprocess(temperature=1.0),
        "limits": Limits(max_batch_size=8),
        "metrics": {"test_accuracy": 1.0},
        "backends": (
            Backend(
                id="torchscript-fp32",
                format="torchscript",
                file="model.ts.pt",
                devices=("cpu", "cuda"),
                precision="fp32",
                tolerance=Tolerance(atol=1e-4),
            ),
        ),
        "golden": golden,
    }
    return Manifest(**fields | changes)
