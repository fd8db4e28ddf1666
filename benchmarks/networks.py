"""The networks that forms of a model are compared on, laid out in a folder. Axes: N images, C, H, W, K labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.workloads import PHOTOGRAPHS
from models.manifest import TensorSpec
from training import imagenet
from training.architectures import zoo
from training.architectures.efficientnet_lite import EfficientNetLite0
from training.architectures.prepared import Prepared

SIZE = 224
NUM_LABELS = 1000
MAX_PIXELS = 10_000_000
# Timed and compared; and those that ranges are taken from, which are others.
TIMED_IMAGES = 32
QUANTIZED_BY = 64
SPEC = TensorSpec(name="images", dtype="uint8", shape=("N", 3, SIZE, SIZE))


@dataclass(frozen=True)
class Architecture:
    """A network.

    Attributes:
        build: Without weights that mean anything.
        prepare: With those that it is compared with, and its preprocessing.
    """

    build: Callable[[], nn.Module]
    prepare: Callable[[], Prepared]


def _of_torchvision(name: str) -> Architecture:
    return Architecture(
        lambda: models.get_model(name, weights=None, num_classes=NUM_LABELS),
        lambda: zoo.build(name, NUM_LABELS, "none", MAX_PIXELS),
    )


NETWORKS = {
    "resnet18": _of_torchvision("resnet18"),
    "resnet50": _of_torchvision("resnet50"),
    "efficientnet": Architecture(EfficientNetLite0, lambda: imagenet.efficientnet_lite0(MAX_PIXELS)),
}


class Logits(nn.Module):
    """uint8 images in, logits out: the graph that is served, but for the softmax, which hides differences.

    Args:
        network: Normalised images -> logits.
        mean_C: For pixels scaled to 0..1.
        std_C: Likewise.
        channels_last: Whether the network is given images in that order of memory.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, network: nn.Module, mean_C: Tensor, std_C: Tensor, channels_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean_C11", mean_C.view(-1, 1, 1))
        self.register_buffer("std_C11", std_C.view(-1, 1, 1))
        self.channels_last = channels_last
        self.bf16 = False

    def in_channels_last(self) -> "Logits":
        """Make weights and activations lie in that order."""
        self.network.to(memory_format=torch.channels_last)
        self.channels_last = True
        return self

    def in_bf16(self) -> "Logits":
        """Make weights and activations bf16; pixels are normalised before, and logits come out as float32."""
        self.network.to(torch.bfloat16)
        self.bf16 = True
        return self

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return float32 logits of shape NK."""
        normalised_NCHW = (images_NCHW.float() / 255 - self.mean_C11) / self.std_C11
        if self.bf16:
            normalised_NCHW = normalised_NCHW.to(torch.bfloat16)
        if self.channels_last:
            normalised_NCHW = normalised_NCHW.contiguous(memory_format=torch.channels_last)
        logits_NK: Tensor = self.network(normalised_NCHW)
        return logits_NK.float()


@dataclass(frozen=True)
class Folder:
    """What all candidates of a network are made from and measured with; none of them draws weights of its own.

    Attributes:
        path: Where it is; each candidate's files have a folder in it.
    """

    path: Path

    def lay_out(self, name: str) -> None:
        """Write a network's weights, the images, and the logits that eager fp32 gives for them."""
        # Random weights are the same in each run.
        torch.manual_seed(0)
        prepared = NETWORKS[name].prepare()
        graph = Logits(prepared.network, prepared.mean_C, prepared.std_C).eval()
        images_NCHW = crops(TIMED_IMAGES, seed=0)
        with torch.inference_mode():
            logits_NK = graph(images_NCHW)
        torch.save({"name": name, "weights": graph.state_dict()}, self.path / "network.pt")
        torch.save({"images_NCHW": images_NCHW, "logits_NK": logits_NK}, self.path / "expected.pt")

    def graph(self) -> Logits:
        """Return the network, in evaluation mode."""
        saved = torch.load(self.path / "network.pt", weights_only=True)
        graph = Logits(NETWORKS[saved["name"]].build(), torch.zeros(3), torch.ones(3))
        graph.load_state_dict(saved["weights"])
        return graph.eval()

    def images(self) -> Tensor:
        """Return the images that are timed, uint8 NCHW."""
        images_NCHW: Tensor = torch.load(self.path / "expected.pt", weights_only=True)["images_NCHW"]
        return images_NCHW

    def logits(self) -> Tensor:
        """Return what eager fp32 gives for them, NK."""
        logits_NK: Tensor = torch.load(self.path / "expected.pt", weights_only=True)["logits_NK"]
        return logits_NK

    def of(self, candidate: str) -> Path:
        """Return the folder of a candidate's own files."""
        path = self.path / candidate
        path.mkdir(exist_ok=True)
        return path


def crops(count: int, seed: int) -> Tensor:
    """Return squares of many sizes and places of the photographs, as uint8 NCHW."""
    photographs = [Image.open(path).convert("RGB") for path in PHOTOGRAPHS]
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_crop(photographs[index % len(photographs)], generator) for index in range(count)])


def _crop(photograph: Image.Image, generator: torch.Generator) -> Tensor:
    side = _below(min(photograph.size) - SIZE // 2, generator) + SIZE // 2
    left, top = (_below(length - side, generator) for length in photograph.size)
    square = photograph.crop((left, top, left + side, top + side))
    image_CHW: Tensor = pil_to_tensor(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return image_CHW


def _below(most: int, generator: torch.Generator) -> int:
    return int(torch.randint(most + 1, (), generator=generator))
