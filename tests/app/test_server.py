import os
import threading
from pathlib import Path

import pytest

from app.main import create_app
from app.server import Server
from app.settings import Settings


@pytest.mark.parametrize(("stuck", "abandoned"), [(True, [0]), (False, [])])
def test_work_that_does_not_come_back_cannot_hold_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: bool, abandoned: list[int]
) -> None:
    settings = Settings(models_dir=tmp_path)
    server = Server(create_app(settings), settings)
    exits: list[int] = []
    gate = threading.Event()
    work = threading.Thread(target=gate.wait, args=(60,))

    def run() -> None:
        server.started = True
        work.start()
        if not stuck:
            gate.set()

    monkeypatch.setattr(server, "run", run)
    monkeypatch.setattr(os, "_exit", exits.append)
    assert server.serve_until_stopped() in (0, None)
    gate.set()
    work.join()
    assert exits == abandoned
