"""A publisher killed at any instant leaves a whole version current, and does not hinder the next."""

import json
import subprocess
import sys
from pathlib import Path

from models.repository import Repository
from tests.bundles import publish
from tests.servers import ROOT

# A process without torch, so that it can fork: each child publishes and kills itself at the n-th line that it
# runs of the repository's or the bundle's code, for every n until one lives to the end.
EXPERIMENT = """
import itertools, json, os, shutil, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from models import bundle, repository, whole_file
from models.manifest import Manifest

before, template, scratch = map(Path, sys.argv[1:])
TRACED = (bundle.__file__, repository.__file__, whole_file.__file__)
MANIFEST = Manifest.parse((template / "manifest.json").read_bytes())


def publish(root):
    with repository.Repository(root).staging("shades") as staging:
        (staging.directory / "golden").mkdir()
        for path in ("model.ts.pt", "golden/0.png"):
            (staging.directory / path).write_bytes((template / path).read_bytes())
        files = bundle.describe_all(staging.directory)
        changes = {"version": staging.version, "created_at": datetime.now(UTC), "files": files}
        staging.write_manifest(MANIFEST.model_copy(update=changes))
        repository.Repository(root).publish("shades", staging)


def killed_at(fatal_line, root):
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            lines += 1
            if lines == fatal_line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    publish(root)
    os._exit(0)


outcomes = []
for fatal_line in itertools.count(1):
    root = scratch / "killed"
    shutil.copytree(before, root)
    killed = killed_at(fatal_line, root)
    current = repository.Repository(root).open("shades").manifest.version
    publish(root)
    after = repository.Repository(root)
    swept = sorted(path.name for path in (root / "shades").glob(".*")) == [".lock", ".publishing.lock"]
    finished = after.open("shades").manifest.version == after.versions("shades")[-1]
    outcomes.append({"current": current, "next": finished and swept})
    shutil.rmtree(root)
    if not killed:
        break
print(json.dumps(outcomes))
"""


def test_killed_at_every_line_a_whole_version_stays_current(tmp_path: Path) -> None:
    before = tmp_path / "before"
    first = publish(Repository(before), "shades")
    command = [sys.executable, "-c", EXPERIMENT, str(before), str(first.directory), str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    outcomes = json.loads(finished.stdout)
    assert len(outcomes) > 200
    assert all(outcome["next"] for outcome in outcomes)
    # Old until the one instant at which CURRENT is replaced, and never old again after it.
    still_old = [outcome["current"] == first.manifest.version for outcome in outcomes]
    assert still_old == sorted(still_old, reverse=True)
    assert still_old[0]
    assert not still_old[-1]
