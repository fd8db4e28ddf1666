import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.errors import ModelsError
from tests.servers import ROOT
from tests.training.together import CERTAIN, certain
from training.distributed import Group, joined
from training.errors import OptionInvalid


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes came to."""
    directory = tmp_path_factory.mktemp("together")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.training.together", str(directory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    saved: dict[str, Any] = torch.load(directory / "found.pt", weights_only=True)
    ranks = [torch.load(directory / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    return saved | {"ranks": ranks}


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("optimizer", CERTAIN)
def test_two_processes_come_to_what_one_comes_to(tmp_path: Path, found: dict[str, Any], optimizer: str) -> None:
    assert furthest(certain(optimizer, Group(), tmp_path), found[optimizer]) < 1e-3


def test_processes_keep_one_model_its_statistics_too(found: dict[str, Any]) -> None:
    first, second = (rank["model"] for rank in found["ranks"])
    assert any("running_mean" in name for name in first)
    assert furthest(first, second) == 0.0


def test_each_process_draws_its_own_random_numbers(found: dict[str, Any]) -> None:
    first, second = (rank["seeds"] for rank in found["ranks"])
    assert len(first) == len(second) > 1
    assert not set(first) & set(second)


def test_processes_that_were_cut_off_go_on_to_the_very_same_weights(found: dict[str, Any]) -> None:
    assert furthest(found["whole"], found["resumed"]) == 0.0


def test_an_interrupt_of_one_process_saves_and_stops_all_at_that_step(found: dict[str, Any]) -> None:
    assert found["pressed"] == [1, 3]


def test_processes_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionInvalid, match=r"--device cuda:1: .* give --device cuda"), joined("cuda:1"):
        pytest.fail("joined")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_device_that_is_not_there_is_told_before_the_processes_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModelsError, match="cuda"), joined("cuda"):
        pytest.fail("joined")
