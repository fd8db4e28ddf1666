import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.training.small import options, silent, task
from tests.training.stopping import Stopping
from training.checkpoint import Checkpoint, alone_in
from training.distributed import Group
from training.errors import OptionInvalid
from training.train import train


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the system refuse to write beyond so many bytes, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "identity")
    checkpoint.save({"step": 1, "weights": torch.zeros(10)})
    with largest_file(4096), pytest.raises(OSError, match="File too large"):
        checkpoint.save({"step": 2, "weights": torch.zeros(100_000)})
    saved = checkpoint.load()
    assert saved is not None
    assert saved["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_disk_that_fills_up_during_a_run_ends_it_with_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.SAVE_INTERVAL_S", 0.0)
    given = options()
    checkpoint = Checkpoint(tmp_path, "identity")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))

    try:
        with pytest.raises(OSError, match="File too large"):
            train(task(given), given, Group(), checkpoint, Stopping(5, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = given.model_copy(update={"resume": True})
    found = train(task(given), again, Group(), checkpoint, silent())
    assert len(found.history) == given.epochs


def test_a_run_directory_is_held_by_one_run(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "run"),
        pytest.raises(OptionInvalid, match="another training is under way in"),
        alone_in(tmp_path / "run"),
    ):
        pytest.fail("held twice")
    with alone_in(tmp_path / "run"):
        pass
