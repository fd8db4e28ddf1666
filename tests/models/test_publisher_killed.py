"""A publisher killed at any instant leaves the old version current and whole."""

import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from models.repository import Repository
from tests.bundles import publish
from tests.servers import ROOT

# Runs in a process of its own, and kills itself at the n-th thing it does to the file system: the
# interpreter's audit events come before each open, rename, mkdir, remove... takes effect.
PUBLISHER = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from models.bundle import describe_all
from models.manifest import Manifest
from models.repository import Repository

root, template, fatal_step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
steps = 0

def count(event, arguments):
    global steps
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
    touches = event == "open" and str(root) in str(arguments[0])
    if changes or touches:
        steps += 1
        if steps == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
repository = Repository(root)
with repository.staging("shades") as staging:
    (staging.directory / "golden").mkdir()
    for path in ("model.ts.pt", "golden/0.png"):
        (staging.directory / path).write_bytes((template / path).read_bytes())
    manifest = Manifest.parse((template / "manifest.json").read_bytes())
    files = describe_all(staging.directory)
    changes = {"version": staging.version, "created_at": datetime.now(UTC), "files": files}
    staging.write_manifest(manifest.model_copy(update=changes))
    repository.publish("shades", staging)
"""


def run_publisher(root: Path, template: Path, fatal_step: int) -> int:
    arguments = [str(root), str(template), str(fatal_step)]
    return subprocess.run([sys.executable, "-c", PUBLISHER, *arguments], cwd=ROOT, check=False).returncode


def test_killed_at_every_step_a_whole_version_stays_current(tmp_path: Path) -> None:
    before = tmp_path / "before"
    first = publish(Repository(before), "shades")
    outcomes = []
    for fatal_step in itertools.count(1):
        root = tmp_path / "killed"
        shutil.copytree(before, root)
        status = run_publisher(root, first.directory, fatal_step)
        current = Repository(root).open("shades").manifest
        outcomes.append(current.version == first.manifest.version)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        # The next publisher is not hindered by what the killed one left.
        if fatal_step % 5 == 0:
            assert run_publisher(root, first.directory, 0) == 0
            repository = Repository(root)
            assert repository.open("shades").manifest.version == repository.versions("shades")[-1]
            assert list((root / "shades").glob(".*")) == [root / "shades/.lock"]
        shutil.rmtree(root)
    # Old until the one instant at which CURRENT is replaced, and never old again after it.
    assert outcomes == sorted(outcomes, reverse=True)
    assert outcomes.count(True) > 15
    assert outcomes[-1] is False
