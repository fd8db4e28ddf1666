"""Augmentation of a whole batch by tensor operations. Axes: N images, C channels, H height, W width, K labels.

Random numbers are drawn on the CPU, by torch's own generator: the same choices whatever the device.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_ERASED, MOST_ERASED = 0.02, 0.33


def flip_and_shift(images_NCHW: Tensor, shift_pixels: int, *, flip: bool = True) -> Tensor:
    """Mirror half of the images, and move each by up to `shift_pixels` in both directions.

    Args:
        images_NCHW: Any dtype, on any device; what moves in from outside is 0.
        shift_pixels: Largest shift; 0 only mirrors.
        flip: Whether to mirror.

    Returns:
        A new tensor of the same shape and dtype.
    """
    N, C, H, W = images_NCHW.shape
    device = images_NCHW.device
    padded_NCHW = F.pad(images_NCHW, (shift_pixels,) * 4)
    span = 2 * shift_pixels + 1
    top_N = torch.randint(span, (N,)).to(device)
    left_N = torch.randint(span, (N,)).to(device)
    mirrored_N = (torch.rand(N) < (0.5 if flip else 0.0)).to(device)

    columns_W = torch.arange(W, device=device)
    rows_NH = top_N[:, None] + torch.arange(H, device=device)
    columns_NW = left_N[:, None] + torch.where(mirrored_N[:, None], columns_W.flip(0), columns_W)
    image_N111 = torch.arange(N, device=device)[:, None, None, None]
    channel_1C11 = torch.arange(C, device=device)[None, :, None, None]
    return padded_NCHW[image_N111, channel_1C11, rows_NH[:, None, :, None], columns_NW[:, None, None, :]]


def erase(images_NCHW: Tensor, share: float) -> Tensor:
    """Make a rectangle of random place and shape black, in a share of the images.

    Source: Zhong et al., "Random erasing data augmentation", arXiv:1708.04896.
    """
    N, _, H, W = images_NCHW.shape
    area_N = torch.empty(N).uniform_(LEAST_ERASED, MOST_ERASED) * H * W
    aspect_N = torch.empty(N).uniform_(-1.2, 1.2).exp()
    height_N = (area_N * aspect_N).sqrt().clamp(1, H).round()
    width_N = (area_N / aspect_N).sqrt().clamp(1, W).round()
    top_N = (torch.rand(N) * (H - height_N + 1)).floor()
    left_N = (torch.rand(N) * (W - width_N + 1)).floor()
    row_NH, column_NW = torch.arange(H).expand(N, H), torch.arange(W).expand(N, W)
    in_rows_NH = (row_NH >= top_N[:, None]) & (row_NH < (top_N + height_N)[:, None])
    in_columns_NW = (column_NW >= left_N[:, None]) & (column_NW < (left_N + width_N)[:, None])
    erased_N = torch.rand(N) < share
    inside_N1HW = (in_rows_NH[:, :, None] & in_columns_NW[:, None, :] & erased_N[:, None, None])[:, None]
    return images_NCHW.masked_fill(inside_N1HW.to(images_NCHW.device), 0)


def mix(
    images_NCHW: Tensor, labels_N: Tensor, num_labels: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix each image with another of the batch, by mixup or cutmix, or by either if both are wanted.

    Args:
        images_NCHW: Float.
        labels_N: int64.
        num_labels: K.
        mixup: Both parameters of the Beta distribution of mixup's share; 0: no mixup.
        cutmix: Likewise of cutmix's.

    Returns:
        The images, and the labels' shares of shape NK.

    Source: Zhang et al., "mixup", arXiv:1710.09412; Yun et al., "CutMix", arXiv:1905.04899.
    """
    # Imported where it is used: it takes a second, which most runs need not spend.
    from torchvision.transforms import v2

    ways = [way(alpha=a, num_classes=num_labels) for way, a in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if a]
    way = ways[int(torch.randint(len(ways), ()))]
    mixed_NCHW, shares_NK = way(images_NCHW, labels_N)
    return mixed_NCHW, shares_NK
