"""Whether a time budget has room for a step at all: the loop ends between steps, not within one."""

import copy
from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor, nn

from training.clock import clock_s
from training.config import OptimizerName, TrainingOptions
from training.errors import OptionInvalid
from training.randomness import permutation
from training.tasks.task import Task

# How often a step may look at the whole training set; lbfgs: torch's default of 20 iterations and a quarter more.
MOST_PASSES: Mapping[OptimizerName, int] = {"gd": 1, "lbfgs": 25}
TIMED_BATCHES = 4


def check_budget(task: Task, options: TrainingOptions, device: torch.device) -> None:
    """Time a batch, and compare a step over the whole training set with the budget.

    Raises:
        OptionInvalid: The step would take longer.
    """
    passes = MOST_PASSES.get(options.optimizer)
    if passes is None or options.budget_s is None:
        return
    step_s = passes * _pass_s(task, options.batch_size, device)
    if step_s > options.budget_s:
        raise OptionInvalid(
            f"the budget of {options.budget_s:g} s has no room for a step, of up to {passes} times all "
            f"{task.train_size} training examples, about {step_s:.0f} s"
        )


def _pass_s(task: Task, batch_size: int, device: torch.device) -> float:
    batches = task.batches(permutation(task.train_size, "budget"), batch_size)
    timed = batches[:: ceil(len(batches) / TIMED_BATCHES)]
    model = copy.deepcopy(task.model).train()
    _differentiate(task, model, timed[0])
    start_s = clock_s(device)
    for batch_N in timed:
        _differentiate(task, model, batch_N)
    return (clock_s(device) - start_s) / len(timed) * len(batches)


def _differentiate(task: Task, model: nn.Module, batch_N: Tensor) -> None:
    loss, _ = task.loss(model, batch_N, augment=False)
    loss.backward()
