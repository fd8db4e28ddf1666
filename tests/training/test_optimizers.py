from typing import Any

import pytest

from tests.training.small import options
from training.architectures.convolutional import ConvNet
from training.errors import OptionInvalid
from training.optimizers import build_optimizer


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon", "adagrad", "rmsprop", "gd"])
def test_only_matrices_decay(optimizer: str) -> None:
    network = ConvNet((1, 8, 8), 4, 2, widths=(2, 2, 2))
    groups = build_optimizer(network, options(optimizer=optimizer, weight_decay=0.5)).param_groups
    decays = [(parameter, group["weight_decay"]) for group in groups for parameter in group["params"]]
    assert len(decays) == len(list(network.parameters()))
    assert all(decay == (0.5 if parameter.ndim > 1 else 0.0) for parameter, decay in decays)


def test_an_optimizer_brings_its_own_learning_rate_unless_one_is_given() -> None:
    def resolved(**given: Any) -> float:
        return (
            type(options())
            .model_validate({"name": "a", "arch": "convnet", **given})
            .resolved({"learning_rate": 0.5})
        ).learning_rate

    assert resolved() == 0.5
    assert resolved(optimizer="sgd") == 0.05
    assert resolved(optimizer="sgd", learning_rate=0.7) == 0.7
    assert resolved(optimizer="adamw") == 0.5


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"weight_decay": 0.1}, "--weight-decay"),
        ({"clip_norm": 1.0}, "--clip-norm"),
        ({"precision": "bf16"}, "--precision"),
    ],
)
def test_what_lbfgs_cannot_do_is_refused(given: dict[str, Any], named: str) -> None:
    fields = {"name": "a", "arch": "convnet", "optimizer": "lbfgs", **given}
    with pytest.raises(OptionInvalid, match=named):
        type(options()).model_validate(fields).resolved({})
