"""Trainings in several processes, for torchrun to start; what they came to is saved for the test.

torchrun --nproc-per-node 2 -m tests.training.together DIRECTORY
"""

import io
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.small import DECODING, dataset, options, silent, task
from tests.training.stopping import Killed, Stopping, kill
from training.checkpoint import Checkpoint
from training.config import ImageOptions
from training.distributed import Group, joined
from training.progress import Progress
from training.randomness import seed_here
from training.tasks.images import ImageClassification
from training.train import train

# Without chance, and without batch normalisation, several processes must come to what one comes to. A line search
# makes much of the last bits of a loss with kinks, so that of L-BFGS is convex and has its minimum somewhere.
CERTAIN: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"flip": False, "learning_rate": 0.01},
    "muon": {"flip": False, "learning_rate": 0.01},
    "lbfgs": {"flip": False, "learning_rate": 1.0, "epochs": 2, "label_smoothing": 0.1},
}
STOP_AFTER = 11


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Seeds(Progress):
    """Notes by which seed each step drew."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), silent=True)
        self.seen: list[int] = []

    def step(self, means: Tensor) -> None:
        self.seen.append(torch.initial_seed())


def certain(optimizer: str, group: Group, directory: Path) -> dict[str, Tensor]:
    given = options(optimizer=optimizer, ema_decay=0.9, **CERTAIN[optimizer])
    seed_here(0, "weights")
    convolutions = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(6 * 9, 2),
    )  # fmt: skip
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 2)) if optimizer == "lbfgs" else convolutions
    one = ImageClassification(dataset(), network, torch.zeros(1), torch.ones(1), DECODING, given)
    train(one, given, group, Checkpoint(directory / optimizer, "identity"), silent())
    return one.model.state_dict()


def normalised(given: ImageOptions, group: Group, checkpoint: Checkpoint, progress: Progress) -> dict[str, Tensor]:
    one = task(given)
    train(one, given, group, checkpoint, progress)
    return one.model.state_dict()


def main() -> None:
    directory = Path(sys.argv[1])
    found: dict[str, Any] = {}
    with joined("cpu") as group, pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.train.SAVE_INTERVAL_S", 0.0)
        for optimizer in CERTAIN:
            found[optimizer] = certain(optimizer, group, directory)
        given = options(ema_decay=0.9)
        seeds = Seeds()
        found["whole"] = normalised(given, group, Checkpoint(directory / "whole", "identity"), seeds)
        torch.save({"model": found["whole"], "seeds": seeds.seen}, directory / f"rank{group.rank}.pt")
        cut = Checkpoint(directory / "cut", "identity")
        with pytest.raises(Killed):
            normalised(given, group, cut, Stopping(STOP_AFTER, kill))
        again = given.model_copy(update={"resume": True})
        found["resumed"] = normalised(again, group, cut, silent())
        pressed = Checkpoint(directory / "pressed", "identity")
        progress = silent() if group.is_first else Stopping(STOP_AFTER, interrupt)
        with pytest.raises(KeyboardInterrupt):
            normalised(given, group, pressed, progress)
        if group.is_first:
            saved = pressed.load()
            assert saved is not None
            found["pressed"] = [saved["epoch"], saved["step_in_epoch"]]
            torch.save(found, directory / "found.pt")


if __name__ == "__main__":
    main()
