"""Augmentation of a whole batch by tensor operations. Axes: N images, C channels, H height, W width."""

import torch
from torch import Tensor
from torch.nn import functional as F


def flip_and_shift(images_NCHW: Tensor, shift_pixels: int, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, and move each by up to `shift_pixels` in both directions.

    Args:
        images_NCHW: Any dtype, on any device; what moves in from outside is 0.
        shift_pixels: Largest shift; 0 only mirrors.
        generator: On the CPU: the same choices whatever the device.

    Returns:
        A new tensor of the same shape and dtype.
    """
    N, C, H, W = images_NCHW.shape
    device = images_NCHW.device
    padded_NCHW = F.pad(images_NCHW, (shift_pixels,) * 4)
    span = 2 * shift_pixels + 1
    top_N = torch.randint(span, (N,), generator=generator).to(device)
    left_N = torch.randint(span, (N,), generator=generator).to(device)
    mirrored_N = (torch.rand(N, generator=generator) < 0.5).to(device)

    columns_W = torch.arange(W, device=device)
    rows_NH = top_N[:, None] + torch.arange(H, device=device)
    columns_NW = left_N[:, None] + torch.where(mirrored_N[:, None], columns_W.flip(0), columns_W)
    image_N111 = torch.arange(N, device=device)[:, None, None, None]
    channel_1C11 = torch.arange(C, device=device)[None, :, None, None]
    return padded_NCHW[image_N111, channel_1C11, rows_NH[:, None, :, None], columns_NW[:, None, None, :]]
