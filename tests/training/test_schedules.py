from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from tests.training.small import options
from training.optimizers import build_optimizer
from training.schedules import build_schedule


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
