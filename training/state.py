"""The state of a run, from its first step to its last: what a checkpoint holds. Axes: N examples."""

import copy
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from training.clock import clock_s
from training.config import FULL_BATCH, TrainingOptions
from training.distributed import Group
from training.optimizers import build_optimizer
from training.randomness import permutation, seed_here
from training.schedules import build_schedule
from training.tasks.task import Task
from training.trained import Epoch

TIMED_STEPS = 5
WARM_STEPS = 2


class Run:
    """The state of a run, from the first step to the last: all that a checkpoint holds."""

    def __init__(self, task: Task, options: TrainingOptions, group: Group) -> None:
        self.task = task
        self.options = options
        self.group = group
        self.device = next(task.model.parameters()).device
        self.precision: str = "fp32" if options.optimizer == "lbfgs" else options.precision
        self.epoch = 0
        self.step_in_epoch = 0
        self.total_steps = 0
        self.examples = 0
        # Summed where the model is: reading a number from a GPU at every step would wait for it.
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.best_score = (-math.inf, -math.inf)
        self.best_state: dict[str, Tensor] = {}
        self.elapsed_before_s = 0.0
        self.started_s = clock_s(self.device)
        self.average = _average(task.model, options.ema_decay) if options.ema_decay else None
        self._restored: dict[str, Any] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, over all the parts of a run that was cut off."""
        return self.elapsed_before_s + clock_s(self.device) - self.started_s

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        if self.options.optimizer in FULL_BATCH:
            return 1
        return max(1, self.task.train_size // self.options.batch_size)

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    @property
    def is_over(self) -> bool:
        """Whether every step was taken, or the run has stopped getting better."""
        patience = self.options.patience
        waited = len(self.history) - 1 - self.best_epoch
        # Counted by epochs: one whose steps are all taken may still have to be validated.
        steps_of_epochs = self.epoch * self.steps_per_epoch
        return steps_of_epochs >= self.total_steps or bool(patience and self.history and waited >= patience)

    @property
    def steps_this_epoch(self) -> int:
        """How many steps the epoch has that is under way: a budget may end within one."""
        return min(self.steps_per_epoch, self.total_steps - self.epoch * self.steps_per_epoch)

    def prepare(self) -> None:
        """Settle what depends on the machine's speed, and make the schedule."""
        if self.precision == "auto":
            self.precision = self._same_everywhere_precision()
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        self.optimizer = _optimizer(self.task, self.options, self.precision)
        if not self.total_steps:
            self.total_steps = self.options.epochs * self.steps_per_epoch
            if self.options.budget_s:
                step_s, validation_s = self._same_everywhere(_step_s(self, self.precision), _validation_s(self))
                self.total_steps = _fitting(self.options.budget_s, step_s, validation_s, self.steps_per_epoch)
        self.schedule = build_schedule(self.optimizer, self.options, self.total_steps)
        if self._restored is not None:
            self.optimizer.load_state_dict(self._restored["optimizer"])
            self.schedule.load_state_dict(self._restored["schedule"])
            self._restored = None
        self.started_s = clock_s(self.device)

    def batches(self) -> Sequence[Tensor]:
        """Return the batches of the epoch under way, of indices, the same in every process."""
        order_N = permutation(self.task.train_size, self.options.seed, "order", self.epoch)
        if self.options.optimizer in FULL_BATCH:
            return [order_N]
        # What fills no batch waits for another epoch: a step on a few examples would weigh as much as the others.
        batch_size = self.options.batch_size
        return self.task.batches(order_N[: self.steps_per_epoch * batch_size], batch_size)

    def take_step(self, indices_N: Tensor) -> Tensor:
        """Move the weights against the gradient of a batch; return its mean loss and score, on the device."""
        seed_here(self.options.seed, "step", self.step, self.group.rank)
        means = _step(self, indices_N)
        self.sums += means
        self.step_in_epoch += 1
        self.schedule.step()
        self.group.mean_statistics(self.task.model)
        if self.average is not None:
            self.average.update_parameters(self.task.model)
        return means

    @property
    def learning_rate(self) -> float:
        """That of the step taken last, of what learns fastest."""
        peak = max(float(rate) for rate in self.schedule.base_lrs)
        return peak * float(self.schedule.lr_lambdas[0](self.step - 1))

    @property
    def learned(self) -> nn.Module:
        """What the run is to come to: the average of the weights if there is one, else the weights."""
        return self.task.model if self.average is None else self.average.module

    def validate(self) -> tuple[float, float]:
        """Return loss and score of what was learned, on the validation part."""
        with self.autocast, torch.inference_mode():
            return self.task.validate(self.learned.eval())

    def state(self) -> dict[str, Any]:
        """Return all of it, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "total_steps": self.total_steps,
            "examples": self.examples,
            "sums": self.sums,
            "history": [asdict(epoch) for epoch in self.history],
            "best": [self.best_epoch, *self.best_score],
            "best_state": self.best_state,
            "elapsed_s": self.elapsed_s,
            "precision": self.precision,
            "model": self.task.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.epoch, self.step_in_epoch = saved["epoch"], saved["step_in_epoch"]
        self.total_steps, self.examples = saved["total_steps"], saved["examples"]
        self.precision = saved["precision"]
        self.sums = saved["sums"].to(self.device)
        self.history = [Epoch(**epoch) for epoch in saved["history"]]
        self.best_epoch, *best_score = saved["best"]
        self.best_score = (best_score[0], best_score[1])
        self.best_state = saved["best_state"]
        self.elapsed_before_s = saved["elapsed_s"]
        self.task.model.load_state_dict(saved["model"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self._restored = saved

    def _same_everywhere(self, *values: float) -> Sequence[float]:
        return self.group.from_first(values, self.device)

    def _same_everywhere_precision(self) -> str:
        seconds = {precision: _step_s(self, precision) for precision in ("fp32", "bf16")}
        (bf16_is_faster,) = self._same_everywhere(float(seconds["bf16"] < seconds["fp32"]))
        return "bf16" if bf16_is_faster else "fp32"


def _step(run: Run, indices_N: Tensor) -> Tensor:
    model, options = run.task.model, run.options
    model.train()
    whole_batch = options.optimizer in FULL_BATCH
    if whole_batch:
        _silence_dropout(model)
    weight = run.task.weight(indices_N)
    mine_N = run.group.share(indices_N)
    parts = mine_N.split(options.batch_size) if whole_batch else (mine_N,)
    first: list[Tensor] = []

    def closure() -> Tensor:
        run.optimizer.zero_grad(set_to_none=True)
        if whole_batch:
            # The same function at every point of it, whatever else in the model is left to chance.
            seed_here(options.seed, "whole", run.group.rank)
        sums = _add_gradients(run, parts, weight, augment=not whole_batch)
        # Here and not once a step: L-BFGS asks several times.
        run.examples += len(indices_N)
        if options.optimizer == "lbfgs":
            _make_contiguous(model)
        run.group.sum_gradients(model.parameters())
        # A line search compares losses by the gradient of that very loss.
        if options.clip_norm and options.optimizer != "lbfgs":
            nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        # Summed here too: an optimizer that looks at the loss must see the same one in every process.
        means = run.group.sum(sums) / weight
        if not first:
            first.append(means)
        return means[0]

    run.optimizer.step(closure)  # type: ignore[arg-type]  # torch means anything that can be compared
    return first[0]


def _add_gradients(run: Run, parts: Sequence[Tensor], weight: float, *, augment: bool) -> Tensor:
    """Add up the gradients of a batch's parts; return their summed loss and score, float64."""
    sums = torch.zeros(2, dtype=torch.float64, device=run.device)
    for part_N in parts:
        if not len(part_N):
            continue
        with run.autocast:
            loss, right = run.task.loss(run.task.model, part_N, augment=augment)
        (loss / weight).backward()
        sums += torch.stack([loss.detach(), right.detach()]).to(sums)
    return sums


def _make_contiguous(model: nn.Module) -> None:
    # torch's L-BFGS looks at each gradient as one row, which kernels in channels-last order do not allow.
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.contiguous()


def _silence_dropout(model: nn.Module) -> None:
    # An optimizer that compares losses along a line needs the same function at every point of it.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


def _optimizer(task: Task, options: TrainingOptions, precision: str) -> Optimizer:
    # What `auto` came to: an optimizer may compute in it too.
    settled = options.model_copy(update={"precision": precision})
    return build_optimizer(task.model, settled, task.rate)


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """Make an exponential moving average of a model, that forgets faster while it is young."""

    def update(averages: Any, currents: Any, _: Any) -> None:  # noqa: ANN401 (torch's own signature)
        # Its count, read where it is: what torch passes was copied to the device, and reading it would wait.
        count = int(average.n_averaged)
        now = min(decay, (1 + count) / (10 + count))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, currents, 1 - now)
        else:
            torch._foreach_copy_(averages, currents)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average


def _step_s(run: Run, precision: str) -> float:
    """Time a step in some precision, on a copy that is thrown away."""
    model, average = run.task.model, run.average
    trial = Run.__new__(Run)
    trial.__dict__ |= run.__dict__
    trial.task = copy.copy(run.task)
    trial.task.model = copy.deepcopy(model)
    trial.average = copy.deepcopy(average)
    trial.optimizer = _optimizer(trial.task, run.options, precision)
    trial.autocast = torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    batches = trial.batches()
    times_s = []
    # A step over the whole training set is long enough to be timed once.
    warm, timed = (1, 1) if run.options.optimizer in FULL_BATCH else (WARM_STEPS, TIMED_STEPS)
    for number in range(warm + timed):
        start_s = clock_s(run.device)
        seed_here(run.options.seed, "timing", number)
        _step(trial, batches[number % len(batches)])
        if trial.average is not None:
            trial.average.update_parameters(trial.task.model)
        times_s.append(clock_s(run.device) - start_s)
    return statistics.median(times_s[warm:])


def _validation_s(run: Run) -> float:
    times_s = []
    for _ in range(2):  # The first of them warms up.
        start_s = clock_s(run.device)
        run.validate()
        times_s.append(clock_s(run.device) - start_s)
    return min(times_s)


def _fitting(budget_s: float, step_s: float, validation_s: float, steps_per_epoch: int) -> int:
    """Return how many steps a budget has room for, with a validation after each epoch, whole or begun."""
    epochs, rest_s = divmod(budget_s, steps_per_epoch * step_s + validation_s)
    steps = int(epochs) * steps_per_epoch + max(0, math.floor((rest_s - validation_s) / step_s))
    return max(1, steps)
