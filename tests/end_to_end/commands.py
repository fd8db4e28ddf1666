"""`python -m training` as a process."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from models.repository import Repository
from tests.servers import ROOT
from training.export import Exported

# Of small models: more threads would only wait for each other.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def places(root: Path) -> tuple[str, ...]:
    return ("--models-dir", str(root / "models"), "--runs-dir", str(root / "runs"))


def run(*arguments: str, python: Sequence[str] = ("-m", "training")) -> tuple[int, str]:
    """Run to its end; return the exit status, and all that it said."""
    command = [sys.executable, *python, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def run_training(root: Path, *arguments: str, python: Sequence[str] = ("-m", "training")) -> tuple[int, str]:
    """The same, with models and runs below `root`."""
    return run(*arguments, *places(root), python=python)


def started(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start it; what it says comes through `stderr`."""
    command = [sys.executable, "-m", "training", *arguments, *places(root)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def weights(root: Path, name: str) -> dict[str, Tensor]:
    bundle = Repository(root / "models").open(name)
    return dict(Exported(bundle.read("model.ts.pt")).module.state_dict())
