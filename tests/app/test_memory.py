"""The bounds on what processes hold; tests/faults/test_leaking_models.py has them at work."""

import os
from pathlib import Path

import pytest

from app import memory
from app.memory import bound_of, resident_bytes
from tests.faults.memory import resident_mb


def test_no_two_worker_processes_have_the_same_bound_and_none_a_much_lower_one() -> None:
    for workers in (1, 2, 64):
        bounds = [bound_of(number, workers, 10**9) for number in range(1, workers + 1)]
        assert bounds == sorted(set(bounds), reverse=True)
        assert bounds[0] == 10**9
        assert bounds[-1] > 0.9 * 10**9


def test_without_a_bound_no_process_has_one() -> None:
    assert bound_of(2, 2, 0) == 0


def test_what_is_held_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident_bytes() / 1e6 == pytest.approx(resident_mb(os.getpid()), rel=0.05)
    monkeypatch.setattr(memory, "STATM", Path("/nowhere"))
    assert resident_bytes() == 0
