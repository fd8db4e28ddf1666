"""A worker process, as the supervisor has it."""

import sys
from pathlib import Path

import pytest

from app.processes.child import Child
from app.settings import Settings


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_that_cannot_be_started_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    before = open_files()
    with pytest.raises(FileNotFoundError):
        Child(1, Settings(models_dir=tmp_path), {}, None, lambda *_: None, lambda _: None, first=False)
    # What pytest keeps of the failure keeps what it leaked from being collected.
    assert open_files() == before
