"""A small residual network. Axes: N images, C channels, H height, W width, K labels."""

from torch import Tensor, nn

from training.architectures.convolutional import convolution_block


class Residual(nn.Module):
    """Two convolutions, around which the input goes on unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution_block(channels, channels),
            *convolution_block(channels, channels),
        )

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return features of the same shape."""
        sum_NCHW: Tensor = features_NCHW + self.body(features_NCHW)
        return sum_NCHW


class ResNet(nn.Module):
    """Three stages of convolution, pooling and a residual block; then the maximum over all places.

    Args:
        input_size: (channels, height, width) of the images; at least 8 pixels a side.
        num_labels: Number of labels.
        width: Channels of the first convolution; each stage doubles them.

    Source: He et al., "Deep residual learning for image recognition", arXiv:1512.03385; the arrangement is that of
    the nine-layer networks of DAWNBench's fastest entries (Page, "How to train your ResNet", 2018).
    """

    def __init__(self, input_size: tuple[int, int, int], num_labels: int, width: int = 32) -> None:
        super().__init__()
        channels, height, width_pixels = input_size
        if min(height, width_pixels) < 8:
            raise ValueError(
                f"input_size: {height} x {width_pixels} is too small to be halved three times; 8 x 8 is the least"
            )
        self.features = nn.Sequential(
            *convolution_block(channels, width),
            *convolution_block(width, 2 * width, nn.MaxPool2d(2)),
            Residual(2 * width),
            *convolution_block(2 * width, 4 * width, nn.MaxPool2d(2)),
            Residual(4 * width),
            *convolution_block(4 * width, 8 * width, nn.MaxPool2d(2)),
            Residual(8 * width),
            nn.AdaptiveMaxPool2d(1),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * width, num_labels))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Classify images.

        Args:
            images_NCHW: float, normalised; N x `input_size`.

        Returns:
            float logits of shape NK.
        """
        logits_NK: Tensor = self.head(self.features(images_NCHW))
        return logits_NK
