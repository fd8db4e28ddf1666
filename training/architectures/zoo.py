"""The classifiers of torchvision by name, each with the preprocessing that its published weights want."""

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import GoogLeNet, Inception3

from models.manifest import ImageDecoding
from training.architectures.heads import replace_head
from training.architectures.prepared import Prepared
from training.architectures.weights import load_weights, plain_names, read_weights
from training.downloads import socket_timeout
from training.errors import OptionInvalid, UnknownArchitecture, WeightsUnavailable

# "DEFAULT": torchvision's best published; "none": drawn at random; else the file of a state dict.
Weights = Literal["DEFAULT", "none"] | Path
DOWNLOAD_TIMEOUT_S = 30.0


class PlainGoogLeNet(GoogLeNet):  # type: ignore[misc]
    """GoogLeNet that returns its logits, scripted or not; torchvision's, scripted, returns three outputs."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits of shape NK for normalised images."""
        logits_NK: Tensor = self._forward(self._transform_input(images_NCHW))[0]
        return logits_NK


class PlainInception3(Inception3):  # type: ignore[misc]
    """Inception v3 that returns its logits, scripted or not; torchvision's, scripted, returns two outputs."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits of shape NK for normalised images."""
        logits_NK: Tensor = self._forward(self._transform_input(images_NCHW))[0]
        return logits_NK


PLAIN: dict[str, type[nn.Module]] = {"googlenet": PlainGoogLeNet, "inception_v3": PlainInception3}


def names() -> list[str]:
    """Return the names of the architectures."""
    known: list[str] = models.list_models(module=models)
    return known


def build(arch: str, num_labels: int, weights: Weights, max_pixels: int, size: int | None = None) -> Prepared:
    """Build a classifier of images in colour.

    Args:
        arch: One of `names()`.
        num_labels: Number of labels. Published weights have 1000, of ImageNet: for another number their head is
            replaced by a new one, still to be trained.
        weights: A file's head must have `num_labels` labels already.
        max_pixels: Most pixels an image file may have.
        size: Pixels a side of the images; None: as the published weights want it.

    Returns:
        The network, in training mode, and the preprocessing of the architecture's published weights, which holds
        for other weights too unless they were trained otherwise.

    Raises:
        UnknownArchitecture: torchvision has none of that name.
        OptionInvalid: It takes no images of that size.
        WeightsUnavailable: The weights cannot be downloaded or read.
        WeightsUnfit: They are not those of this architecture, or of another number of labels.
    """
    if arch not in names():
        raise UnknownArchitecture(f"torchvision has no classifier {arch!r}; it has {', '.join(names())}")
    published = models.get_model_weights(arch).DEFAULT
    if weights == "none":
        network = _network(arch, num_labels, init_weights=True, size=size)
    elif weights == "DEFAULT":
        network = _network(arch, len(published.meta["categories"]), init_weights=False, size=size)
        load_weights(network, _download(published), str(published))
        if num_labels != len(published.meta["categories"]):
            replace_head(network, num_labels)
    else:
        network = _network(arch, num_labels, init_weights=False, size=size)
        load_weights(network, read_weights(weights), str(weights))
    preset = published.transforms()
    decoding = _decoding(preset, max_pixels, size)
    return Prepared(network, torch.tensor(preset.mean), torch.tensor(preset.std), decoding)


def _network(arch: str, num_labels: int, init_weights: bool, size: int | None = None) -> nn.Module:
    if arch in PLAIN:
        # `transform_input` belongs to the published weights and is no tensor: a state dict does not tell.
        return PLAIN[arch](num_labels, aux_logits=False, transform_input=True, init_weights=init_weights)
    options: dict[str, Any] = {"num_classes": num_labels}
    # The position embeddings of these are for one size.
    if arch.startswith("vit_"):
        options["image_size"] = size or models.get_model_weights(arch).DEFAULT.transforms().crop_size[0]
    if arch.startswith("maxvit_") and size:
        options["input_size"] = (size, size)
    try:
        network: nn.Module = models.get_model(arch, weights=None, **options)
    except (ValueError, AssertionError) as error:
        raise OptionInvalid(f"--size {size}: {arch} takes none such: {str(error).splitlines()[0]}") from error
    return network


def _download(published: models.WeightsEnum) -> dict[str, Tensor]:
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_S):
            state = published.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = f"{error}; weights can be given as a file too"
        raise WeightsUnavailable(f"{published} cannot be downloaded: {reason}") from error
    return plain_names(state)


def _decoding(preset: Any, max_pixels: int, size: int | None) -> ImageDecoding:  # noqa: ANN401 (torchvision is not typed)
    (crop,), (shorter_side,) = preset.crop_size, preset.resize_size
    size = size or crop
    return ImageDecoding(
        color="RGB",
        size=(size, size),
        fit="crop",
        # Of another size, the same share of the image.
        shorter_side=round(size * shorter_side / crop),
        interpolation=preset.interpolation.value,
        max_pixels=max_pixels,
    )
