"""A run's checkpoint: what it needs to go on after it was cut off, in one file that is always whole."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.errors import CheckpointUnfit

FORMAT = 1
FILE = "checkpoint.pt"


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
        temporary = self.file.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            torch.save({"format": FORMAT, "identity": self._identity, "state": dict(state)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.file)
        _sync_directory(self.file.parent)

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

    def remove(self) -> None:
        """Forget the run: it ended."""
        self.file.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
