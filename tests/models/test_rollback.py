import os
import subprocess
import sys

import pytest

from models import rollback
from models.repository import Repository
from tests.bundles import publish
from tests.servers import ROOT


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "models.rollback", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_an_older_version_is_made_current(repository: Repository) -> None:
    first, _ = publish(repository, "shades"), publish(repository, "shades")
    finished = run("shades", first.manifest.version, LANTERN_MODELS_DIR=str(repository.root))
    assert finished.returncode == 0, finished.stderr
    assert repository.current("shades").version == first.manifest.version


@pytest.mark.parametrize("arguments", [("shades", "20000101.1"), ("other", "20000101.1")])
def test_what_is_not_there_changes_nothing_and_says_so(
    shades: Repository,
    arguments: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = shades.current("shades")
    monkeypatch.setattr(sys, "argv", ["rollback", *arguments, "--models-dir", str(shades.root)])
    assert rollback.main() == 1
    assert "nothing was changed: " in capsys.readouterr().err
    assert shades.current("shades") == before
