"""Optimizers, by name."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from training.architectures.matrices import hidden_weights, is_matrix
from training.config import OptimizerName, TrainingOptions
from training.muon import Muon

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
    "adagrad": lambda groups, rate, _: Adagrad(groups, lr=rate),
    "rmsprop": lambda groups, rate, momentum: RMSprop(groups, lr=rate, momentum=momentum),
    "gd": lambda groups, rate, _: SGD(groups, lr=rate),
}


def build_optimizer(network: nn.Module, options: TrainingOptions, rates: Rates = lambda _: 1.0) -> Optimizer:
    """Make the optimizer that the options name.

    All of them decay matrices and kernels only: normalisation and biases have no scale to restrain.

    Args:
        network: Of its parameters, those that want a gradient.
        options: Name the optimizer; the precision is settled.
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
    if options.optimizer == "muon":
        return _muon(network, parameters, options, rates)
    groups = _groups(parameters, options, rates)
    return OF_GROUPS[options.optimizer](groups, options.learning_rate, options.momentum)


def _muon(
    network: nn.Module, parameters: Mapping[str, nn.Parameter], options: TrainingOptions, rates: Rates
) -> Muon:
    hidden = hidden_weights(network)
    of_hidden = {name: each for name, each in parameters.items() if name in hidden}
    others = {name: each for name, each in parameters.items() if name not in hidden}
    groups = [
        *(group | {"orthogonal": True} for group in _groups(of_hidden, options, rates)),
        *(group | {"orthogonal": False} for group in _groups(others, options, rates)),
    ]
    bf16 = options.precision == "bf16"
    return Muon(groups, lr=options.learning_rate, momentum=options.momentum, bf16=bf16)


def _groups(parameters: Mapping[str, nn.Parameter], options: TrainingOptions, rates: Rates) -> Groups:
    """Group parameters by whether they decay, and by their learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if is_matrix(parameter) else 0.0
        groups.setdefault((decay, rates(name)), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "lr": share * options.learning_rate}
        for (decay, share), members in groups.items()
    ]
