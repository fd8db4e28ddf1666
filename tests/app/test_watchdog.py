"""The watchdog does no harm itself; tests/faults/test_misbehaving_models.py has it at work."""

import faulthandler
from typing import Any

import pytest

from app.watchdog import Watchdog


def test_where_it_cannot_watch_it_says_so_once_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has_threads = iter([False, False, True, False])
    armed: list[float] = []

    def arm(timeout_s: float, **_: Any) -> None:
        if not next(has_threads):
            raise RuntimeError("unable to start watchdog thread")
        armed.append(timeout_s)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    watchdog = Watchdog(7.0)
    for _ in range(4):
        watchdog.reassure()
    assert armed == [7.0]
    assert len(caplog.records) == 2


def test_without_a_limit_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: pytest.fail("it watches"))
    watchdog = Watchdog(0)
    watchdog.reassure()
    watchdog.dismiss()
