"""The suite itself, pointed at an address, as docs/open_inference.md says: a server that it knows nothing of."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from models.repository import Repository
from tests.bundles import publish
from tests.open_inference.target import of_this_service
from tests.servers import ROOT, environment_without_settings, metric, process

# Else the suite would run itself, and so on.
pytestmark = of_this_service

SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] tests/open_inference/(\w+)\.py", re.MULTILINE)


@pytest.fixture(autouse=True)
def unharmed() -> None:
    """Another server than the suite's is asked here."""


def test_the_suite_passes_of_a_server_that_it_is_pointed_at(repository: Repository, tmp_path: Path) -> None:
    # A name that the suite's own server does not know.
    publish(repository, "elsewhere")
    command = [
        sys.executable, "-m", "pytest", "tests/open_inference", "-p", "no:cacheprovider",
        f"--basetemp={tmp_path / 'suite'}",
    ]  # fmt: skip
    with process(repository.root, drain_grace_s=0) as service:
        address = {
            "OPEN_INFERENCE_URL": str(service.until_ready().client.base_url),
            "OPEN_INFERENCE_MODEL": "elsewhere",
            "PYTEST_ADDOPTS": "",
        }
        environment = environment_without_settings() | address
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        answered = metric(service, "lantern_requests_total", model="elsewhere", code="ok")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 150
    # Nearly each asks at its end whether the server still answers: it was this one that they asked.
    assert answered >= int(passed[1])
    # What asks this service only. Of the protocol nothing was left out.
    skipped = Counter[str]()
    for count, file in SKIPPED.findall(done.stdout):
        skipped[file] += int(count)
    assert skipped == {"test_any_address": 1, "test_documentation": 1, "test_states": 2}
