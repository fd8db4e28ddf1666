"""A run's checkpoint: what it needs to go on after it was cut off, in one file that is always whole."""

import fcntl
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from models.whole_file import whole_file
from training.errors import CheckpointUnfit, OptionInvalid

FORMAT = 2
FILE = "checkpoint.pt"
SET_ASIDE = "checkpoint.before.pt"


class Checkpoint:
    """The checkpoint file of one run.

    Args:
        directory: The run's own.
        identity: What the run trains and on what; a checkpoint of another identity is not gone on from.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self.file = directory / FILE
        self._identity = identity

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, of tensors and plain values, in the place of the one before.

        Raises:
            OSError: It cannot be written; the one before is still there.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(self.file) as stream:
                torch.save({"format": FORMAT, "identity": self._identity, "state": dict(state)}, stream)
        except RuntimeError as error:
            # torch stumbles over its own archive when a write fails; what the system said stands behind that.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    def load(self) -> dict[str, Any] | None:
        """Read the state back; None if there is none.

        Raises:
            CheckpointUnfit: It is of another run, or of another Lantern.
        """
        if not self.file.exists():
            return None
        try:
            saved = torch.load(self.file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise CheckpointUnfit(f"{self.file} cannot be read: {error}") from error
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise CheckpointUnfit(f"{self.file} is not a checkpoint of this Lantern; train without --resume")
        if saved["identity"] != self._identity:
            raise CheckpointUnfit(
                f"{self.file} is of a run with other options or data; give the same, or train without --resume"
            )
        state: dict[str, Any] = saved["state"]
        return state

    def set_aside(self) -> Path | None:
        """Make room for a new run; return where an earlier one's state now is, None if there was none."""
        if not self.file.exists():
            return None
        return self.file.replace(self.file.with_name(SET_ASIDE))

    def remove(self) -> None:
        """Forget the run: it ended."""
        self.file.unlink(missing_ok=True)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold a run's directory: two runs would write over each other's checkpoints.

    Raises:
        OptionInvalid: Another run holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock when its holder dies, however it dies.
    with (directory / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionInvalid(
                f"another training is under way in {directory}; give this one another --name or --runs-dir"
            ) from None
        yield
