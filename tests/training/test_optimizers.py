from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from tests.training.small import options
from training.architectures.convolutional import ConvNet
from training.errors import OptionInvalid
from training.optimizers import build_optimizer, build_schedule


def schedule_of(steps: int, **changes: Any) -> LRScheduler:
    given = options(learning_rate=1.0, **changes)
    return build_schedule(build_optimizer(torch.nn.Linear(2, 2), given), given, steps)


def rates_of(schedule: LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        schedule.optimizer.step()
        schedule.step()
    return rates


def test_cosine_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = rates_of(schedule_of(100, warmup_fraction=0.1), 100)
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_step_halves_five_times() -> None:
    rates = rates_of(schedule_of(60, schedule="step", warmup_fraction=0), 60)
    assert [rates[index] for index in (0, 9, 10, 20, 59)] == [1.0, 1.0, 0.5, 0.25, 0.5**5]


def test_constant_stays() -> None:
    assert rates_of(schedule_of(9, schedule="constant", warmup_fraction=0), 9) == [1.0] * 9


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_every_schedule_bears_the_shortest_runs(schedule: str, steps: int) -> None:
    assert all(
        0 <= rate <= 1 for rate in rates_of(schedule_of(steps, schedule=schedule, warmup_fraction=0.5), steps)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad", "rmsprop", "gd"])
def test_only_matrices_decay(optimizer: str) -> None:
    network = ConvNet((1, 8, 8), 4, 2, widths=(2, 2, 2))
    decayed, free = build_optimizer(network, options(optimizer=optimizer, weight_decay=0.5)).param_groups
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


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
    ("given", "named"), [({"weight_decay": 0.1}, "--weight-decay"), ({"precision": "bf16"}, "--precision")]
)
def test_what_lbfgs_cannot_do_is_refused(given: dict[str, Any], named: str) -> None:
    fields = {"name": "a", "arch": "convnet", "optimizer": "lbfgs", **given}
    with pytest.raises(OptionInvalid, match=named):
        type(options()).model_validate(fields).resolved({})
