"""The course of the learning rate, by name."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.config import ScheduleName, TrainingOptions

STEP_HALVINGS = 5


def build_schedule(optimizer: Optimizer, options: TrainingOptions, steps: int) -> LambdaLR:
    """Make the course of the learning rate over so many steps: a linear rise, then as the options say."""
    warmup_steps = max(1, min(steps - 1, round(steps * options.warmup_fraction))) if options.warmup_fraction else 0

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return course(options.schedule, (step - warmup_steps) / max(1, steps - warmup_steps))

    return LambdaLR(optimizer, factor)


def course(schedule: ScheduleName, progress: float) -> float:
    """Return the share of the peak learning rate after a share of the steps.

    Source: cosine, Loshchilov and Hutter, "SGDR", arXiv:1608.03983, equation 5, without restarts.
    """
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        case "step":
            return 0.5 ** math.floor(min(progress, 1.0) * (STEP_HALVINGS + 1))
        case "constant":
            return 1.0
