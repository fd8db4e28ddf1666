"""A directory of models that cannot be written, as the containers have it: it serves and reloads as any other."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from app.api_keys import line_of, new_key
from models.repository import Repository
from tests.bundles import Always, publish
from tests.faults.asking import ask, asked_all_along, until_more
from tests.faults.disks import read_only_mount, unprivileged
from tests.faults.models import Silent
from tests.servers import ROOT, process, until

KEY = new_key()
ADMIN = {"X-API-Key": KEY}
REASONS = ("Read-only file system", "Permission denied")


@contextmanager
def forbidden(root: Path) -> Iterator[Sequence[str]]:
    """Take the right to write away from whoever is started through what this gives, by the files' modes."""
    set_modes(root, 0o555)
    try:
        yield unprivileged()
    finally:
        set_modes(root, 0o755)


def set_modes(root: Path, mode: int) -> None:
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(mode)


@pytest.fixture(params=["a read-only mount", "no permission"])
def through(request: pytest.FixtureRequest, repository: Repository) -> Iterator[Sequence[str]]:
    """What starts a process that cannot write to the models; there are two versions of one."""
    for index in range(2):
        publish(repository, "shades", Always(index))
    repository.set_default("image", "shades")
    if request.param == "no permission":
        with forbidden(repository.root) as command:
            yield command
    else:
        with read_only_mount(repository.root) as mount:
            yield mount.through


def publish_anyhow(repository: Repository, index: int) -> str:
    """Publish as somebody who may write."""
    mode = repository.root.stat().st_mode
    set_modes(repository.root, 0o755)
    version = publish(repository, "shades", Always(index)).manifest.version
    set_modes(repository.root, mode)
    return version


def test_it_serves_reloads_and_says_what_it_cannot_write(
    repository: Repository, through: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(line_of("operator", KEY))
    older, newer = repository.versions("shades")
    changes: tuple[tuple[str, str, dict[str, Any], int], ...] = (
        ("POST", "/v2/repository/models/shades/unload", {}, 400),
        ("PUT", "/admin/models/shades/candidate", {"version": older, "share": 0.5}, 409),
        ("POST", "/admin/models/shades/rollback", {"version": older}, 409),
    )
    with process(
        repository.root,
        through=through,
        reload_interval_s=0.05,
        cpu_threads=2,
        admin_keys_file=tmp_path / "keys",
        feedback_file=repository.root / "corrections",
    ) as service:
        client = service.until_ready().client
        with asked_all_along(service, None) as statuses:
            for method, path, body, status in changes:
                response = client.request(method, path, json=body, headers=ADMIN)
                assert response.status_code == status, response.text
                said = response.json()
                detail = said.get("detail") or said["error"]
                assert detail in [f"the models directory cannot be changed: {reason}" for reason in REASONS]
            assert client.get("/models/shades").json()["version"] == newer
            correction = {"request_id": "r-1", "model": "shades", "label": "light"}
            refused = client.post("/feedback", json=correction)
            assert (refused.status_code, refused.json()["code"]) == (500, "internal_error")
            # What is already served may be asked for.
            load = client.post("/v2/repository/models/shades/load", headers=ADMIN)
            assert load.status_code == 200
            latest = publish_anyhow(repository, 2)
            until(lambda: client.get("/models/shades").json()["version"] == latest)
            assert ask(client, "shades", 0).json()["predictions"][0]["label"] == "light"
            until_more(statuses)
        assert set(statuses) == {200}
    assert any("LANTERN_FEEDBACK_FILE: " in line and "cannot be written" in line for line in service.lines)
    assert any("corrections cannot be used" in line for line in service.lines)
    assert not [line for line in service.lines if "Traceback" in line]


@pytest.mark.parametrize(
    "command",
    [
        ("models.rollback", "shades", "{older}"),
        ("models.rollout", "shades", "{older}", "--share", "0.5"),
        ("training", "import", "{model}", "--labels", "{labels}", "--size", "8", "--name", "shades"),
    ],
)
def test_a_command_says_in_one_line_that_it_cannot_write(
    repository: Repository, through: Sequence[str], tmp_path: Path, command: Sequence[str]
) -> None:
    (tmp_path / "labels.txt").write_text("dark\ngrey\nlight\n")
    torch.jit.save(torch.jit.script(Silent()), tmp_path / "silent.pt")
    older, newer = repository.versions("shades")
    places = {"older": older, "model": tmp_path / "silent.pt", "labels": tmp_path / "labels.txt"}
    arguments = [each.format(**places) for each in command]
    done = subprocess.run(
        [*through, sys.executable, "-m", *arguments, "--models-dir", str(repository.root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert any(reason in line for reason in REASONS)
    assert repository.open("shades").manifest.version == newer
