"""Optimizers and learning-rate schedules, by name."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from training.config import OptimizerName, ScheduleName, TrainingOptions
from training.muon import Muon

STEP_HALVINGS = 5
# Between 3 and 20 is usual (Nocedal and Wright, chapter 7.2); each is two more copies of the weights.
LBFGS_HISTORY = 10


# Name of a parameter -> share of the learning rate that it takes.
Rates = Callable[[str], float]
Groups = list[dict[str, Any]]
# Of groups of parameters, learning rate and momentum.
OF_GROUPS: Mapping[OptimizerName, Callable[[Groups, float, float], Optimizer]] = {
    "sgd": lambda groups, rate, momentum: SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0),
    "adam": lambda groups, rate, _: Adam(groups, lr=rate, fused=True),
    "adamw": lambda groups, rate, _: AdamW(groups, lr=rate, fused=True),
    "muon": lambda groups, rate, momentum: Muon(groups, lr=rate, momentum=momentum),
    "adagrad": lambda groups, rate, _: Adagrad(groups, lr=rate),
    "rmsprop": lambda groups, rate, momentum: RMSprop(groups, lr=rate, momentum=momentum),
    "gd": lambda groups, rate, _: SGD(groups, lr=rate),
}


def build_optimizer(network: nn.Module, options: TrainingOptions, rates: Rates = lambda _: 1.0) -> Optimizer:
    """Make the optimizer that the options name.

    All of them decay matrices and kernels only: normalisation and biases have no scale to restrain.

    Args:
        network: Of its parameters, those that want a gradient.
        options: Name the optimizer.
        rates: For discriminative learning rates; lbfgs takes one for all.

    Source: sgd with Nesterov's momentum, Sutskever et al., ICML 2013; adam, Kingma and Ba, arXiv:1412.6980; adamw,
    Loshchilov and Hutter, arXiv:1711.05101; adagrad, Duchi et al., JMLR 12, 2011; rmsprop, Tieleman and Hinton,
    2012; muon, as its class says; lbfgs, Nocedal and Wright, "Numerical optimization", 2006, algorithms 7.5 and
    3.5. `gd` is the plain gradient of the whole training set.
    """
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if options.optimizer == "lbfgs":
        # One group is all it takes, and its line search finds the step's length.
        return LBFGS(
            parameters.values(),
            lr=options.learning_rate,
            history_size=LBFGS_HISTORY,
            line_search_fn="strong_wolfe",
        )
    groups = _groups(parameters, options, rates, _hidden(network))
    return OF_GROUPS[options.optimizer](groups, options.learning_rate, options.momentum)


def _groups(
    parameters: Mapping[str, nn.Parameter], options: TrainingOptions, rates: Rates, hidden: Collection[str]
) -> Groups:
    """Group parameters by whether they decay, by their learning rate, and by whether they are hidden layers'."""
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        orthogonal = options.optimizer == "muon" and name in hidden
        groups.setdefault((decay, rates(name), orthogonal), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "lr": share * options.learning_rate, "orthogonal": orthogonal}
        for (decay, share, orthogonal), members in groups.items()
    ]


def _hidden(network: nn.Module) -> Collection[str]:
    """Return the names of the matrices and kernels between a network's input and its output.

    Not those that look tokens up, nor the last, nor kernels with one input channel: each row of those is a filter
    by itself.
    """
    tables = [module.weight for module in network.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    matrices = [(name, parameter) for name, parameter in network.named_parameters() if parameter.ndim > 1]
    return {
        name
        for name, matrix in matrices[:-1]
        if matrix.shape[1] > 1 and not any(matrix is table for table in tables)
    }


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
