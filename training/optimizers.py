"""Optimizers and learning-rate schedules, by name."""

import math

from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from training.config import ScheduleName, TrainingOptions

STEP_HALVINGS = 5


def build_optimizer(network: nn.Module, options: TrainingOptions) -> Optimizer:
    """Make the optimizer that the options name.

    All of them decay matrices and kernels only: normalisation and biases have no scale to restrain.

    Source: sgd with Nesterov's momentum, Sutskever et al., ICML 2013; adam, Kingma and Ba, arXiv:1412.6980; adamw,
    Loshchilov and Hutter, arXiv:1711.05101; adagrad, Duchi et al., JMLR 12, 2011; rmsprop, Tieleman and Hinton,
    2012; lbfgs, Nocedal and Wright, "Numerical optimization", 2006, algorithms 7.5 and 3.5. `gd` is the plain
    gradient of the whole training set.
    """
    rate, momentum = options.learning_rate, options.momentum
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if options.optimizer == "lbfgs":
        # One group is all it takes, and its line search finds the step's length.
        return LBFGS(parameters, lr=rate, line_search_fn="strong_wolfe")
    groups = decay_groups(parameters, options.weight_decay)
    match options.optimizer:
        case "sgd":
            return SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
        case "adam":
            return Adam(groups, lr=rate, fused=True)
        case "adamw":
            return AdamW(groups, lr=rate, fused=True)
        case "adagrad":
            return Adagrad(groups, lr=rate)
        case "rmsprop":
            return RMSprop(groups, lr=rate, momentum=momentum)
        case "gd":
            return SGD(groups, lr=rate)


def decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, list[Tensor] | float]]:
    """Split parameters into those that decay and those that do not."""
    decayed: list[Tensor] = [parameter for parameter in parameters if parameter.ndim > 1]
    free: list[Tensor] = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = ((decayed, weight_decay), (free, 0.0))
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def build_schedule(optimizer: Optimizer, options: TrainingOptions, steps: int) -> LRScheduler:
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
