"""Optimizers and learning-rate schedules."""

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR


def adamw(network: nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW that decays matrices and kernels only: normalisation and biases have no scale to restrain.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv:1711.05101.
    """
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    free = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return AdamW(groups, lr=learning_rate, fused=True)


def cosine_with_warmup(optimizer: Optimizer, steps: int, warmup_fraction: float) -> LRScheduler:
    """Rise linearly over the first share of the steps, then fall to zero along half a cosine.

    Source: Loshchilov and Hutter, "SGDR", arXiv:1608.03983, equation 5, without restarts.
    """
    warmup_steps = max(1, min(steps - 1, round(steps * warmup_fraction)))
    rise = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    fall = CosineAnnealingLR(optimizer, T_max=max(1, steps - warmup_steps))
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup_steps])
