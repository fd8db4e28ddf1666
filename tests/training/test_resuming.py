"""A run that was cut off, however it was, goes on as if it had not been."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.small import options, same, silent, state_of, task, trained
from tests.training.stopping import Killed, Stopping, kill
from training.checkpoint import Checkpoint
from training.config import OptimizerName
from training.distributed import Group
from training.train import train

AIDS: list[dict[str, Any]] = [
    {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 0.5, "erase": 0.5, "shift_pixels": 1},
    {"optimizer": "sgd", "schedule": "step", "precision": "bf16"},
    {"optimizer": "muon"},
    {"optimizer": "lbfgs", "learning_rate": 1.0, "epochs": 3},
]


@pytest.mark.parametrize("changes", AIDS)
@pytest.mark.parametrize("after", [1, 11, 16, 17])
def test_a_killed_run_goes_on_to_the_very_same_weights(
    tmp_path: Path, changes: dict[str, Any], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.SAVE_INTERVAL_S", 0.0)
    given = options(**changes)
    after = min(after, 2) if given.optimizer == "lbfgs" else after
    whole = task(given)
    found = trained(tmp_path / "whole", whole, given)
    checkpoint = Checkpoint(tmp_path / "cut", "identity")
    with pytest.raises(Killed):
        train(task(given), given, Group(), checkpoint, Stopping(after, kill))
    again = given.model_copy(update={"resume": True, "seed": given.seed})
    resumed = task(given)
    with torch.no_grad():  # what a new process begins with must not matter
        for parameter in resumed.model.parameters():
            parameter.zero_()
    went_on = train(resumed, again, Group(), checkpoint, silent())
    assert same(state_of(whole), state_of(resumed))
    assert [epoch.train_loss for epoch in went_on.history] == [epoch.train_loss for epoch in found.history]
    assert went_on.examples == found.examples


def test_control_c_saves_and_stops_at_the_step(tmp_path: Path) -> None:
    given = options()
    checkpoint = Checkpoint(tmp_path, "identity")
    stopping = Stopping(11, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(task(given), given, Group(), checkpoint, stopping)
    saved = checkpoint.load()
    assert saved is not None
    assert (saved["epoch"], saved["step_in_epoch"]) == (1, 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_while_the_last_epoch_is_validated_stops_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(epochs=1)
    small = task(given)

    def validate(model: nn.Module) -> tuple[float, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return 1.0, 1.0

    monkeypatch.setattr(small, "validate", validate)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, small, given)
    assert len(trained(tmp_path, task(given), given.model_copy(update={"resume": True})).history) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "gd"])
def test_a_run_cut_off_between_its_last_step_and_its_validation_goes_on(
    tmp_path: Path, optimizer: OptimizerName
) -> None:
    given = options(optimizer=optimizer, epochs=1)
    whole = task(given)
    trained(tmp_path / "whole", whole, given)
    checkpoint = Checkpoint(tmp_path / "cut", "identity")
    steps = 1 if optimizer == "gd" else 8
    with pytest.raises(KeyboardInterrupt):
        interrupt = Stopping(steps, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(task(given), given, Group(), checkpoint, interrupt)
    resumed = task(given)
    found = train(resumed, given.model_copy(update={"resume": True}), Group(), checkpoint, silent())
    assert len(found.history) == 1
    assert same(state_of(whole), state_of(resumed))


def test_resuming_nothing_begins_anew(tmp_path: Path) -> None:
    given = options(epochs=1, resume=True)
    assert len(trained(tmp_path, task(given), given).history) == 1
