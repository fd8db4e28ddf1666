"""A full disk: predictions go on, what cannot be stored is refused whole, and is taken once there is room."""

import os
import socket
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app.api_keys import line_of, new_key
from models.repository import Repository
from tests.bundles import Always, publish
from tests.faults.asking import ask, asked_all_along, until_more
from tests.faults.disks import FileLimit, Mount, small_disk
from tests.faults.models import Silent
from tests.images import png
from tests.servers import ROOT, environment_without_settings, process, until

Disk = Mount | FileLimit

KEY = new_key()
ADMIN = {"X-API-Key": KEY}
OWN_PID = os.getpid()


@pytest.fixture(params=["a small disk", "a limit on files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "a limit on files":
        yield FileLimit(tmp_path / "disk")
    else:
        with small_disk(tmp_path / "disk") as mount:
            yield mount


@pytest.fixture
def versions(disk: Disk) -> tuple[str, str]:
    """The current version of a model on the disk, and a newer one."""
    repository = Repository(disk.seen / "artifacts")
    older, newer = (publish(repository, "shades", Always(index)).manifest.version for index in range(2))
    repository.rollback("shades", older)
    return older, newer


def correct(client: httpx.Client, content: bytes, status: int) -> Any:
    body = {"request_id": "r-1", "model": "shades", "label": "light", "image": b64encode(content).decode()}
    response = client.post("/feedback", json=body)
    assert response.status_code == status, response.text
    return response.json()


def stored(file: Path, copy: Path) -> list[tuple[int, bytes]]:
    """What is in the file, which must be a whole one; SQLite would look for it where its own path leads."""
    copy.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT id, content FROM corrections ORDER BY id").fetchall()


def test_a_service_on_a_full_disk_answers_and_stores_nothing_by_halves(
    disk: Disk, versions: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(line_of("operator", KEY))
    older, newer = versions
    model, file = disk.seen / "artifacts/shades", disk.seen / "corrections"
    settings: dict[str, Any] = {
        "feedback_file": disk.directory / "corrections",
        "admin_keys_file": tmp_path / "keys",
    }
    through = (*disk.through, "env", f"TMPDIR={disk.directory}")
    with process(disk.directory / "artifacts", through=through, cpu_threads=2, **settings) as service:
        client, pid = service.until_ready().client, service.popen.pid
        changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("PUT", "candidate", {"version": newer, "share": 0.5}),
            ("POST", "rollback", {"version": newer}),
        )
        assert correct(client, png(0), 201) == {"id": 1}
        with asked_all_along(service, "shades") as statuses:
            before = sorted(model.iterdir()), (model / "CURRENT").read_bytes()
            disk.fill(pid)
            for grey in range(5):
                problem = correct(client, png(grey), 507)
                assert (problem["code"], "is full" in problem["detail"]) == ("storage_full", True)
            for method, path, body in changes:
                response = client.request(method, f"/admin/models/shades/{path}", json=body, headers=ADMIN)
                assert (response.status_code, response.json()["code"]) == (507, "storage_full")
            # More than is kept in memory by whoever spools forms to files.
            form = [("file", png(0, size=(8, 8)) + bytes(3_000_000))]
            assert client.post("/predict", files=form).status_code == 200
            assert (sorted(model.iterdir()), (model / "CURRENT").read_bytes()) == before
            assert client.get("/models/shades").json()["version"] == older
            until_more(statuses)
            disk.free(pid)
            assert correct(client, png(9), 201) == {"id": 2}
            for method, path, body in changes:
                response = client.request(method, f"/admin/models/shades/{path}", json=body, headers=ADMIN)
                assert response.status_code == 200, response.text
            assert client.get("/models/shades").json()["version"] == newer
            until_more(statuses)
        assert set(statuses) == {200}
    assert stored(file, tmp_path / "copy") == [(1, png(0)), (2, png(9))]
    assert not [line for line in service.lines if "Traceback" in line]


def test_corrections_that_the_disk_has_no_room_for_begin_once_it_has(shades: Repository, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk") as disk,
        process(shades.root, through=disk.through, feedback_file=disk.directory / "corrections") as service,
    ):
        client, pid = service.until_ready().client, service.popen.pid
        disk.fill(pid)
        correct(client, png(0), 507)
        disk.free(pid)
        assert correct(client, png(1), 201) == {"id": 1}
        assert stored(disk.seen / "corrections", tmp_path / "copy") == [(1, png(1))]


def test_a_publication_that_does_not_fit_leaves_the_version_of_before(disk: Disk) -> None:
    """However little room there is: a little more each time, until it fits."""
    repository = Repository(disk.seen / "artifacts")
    first = publish(repository, "shades").manifest.version
    directory, refused = disk.seen / "artifacts/shades", 0
    while True:
        disk.fill(OWN_PID, but_bytes=256 * refused)
        try:
            publish(repository, "shades", Always(1))
        except OSError as error:
            reason = error.strerror
        else:
            break
        finally:
            disk.free(OWN_PID)
        refused += 1
        assert reason in ("No space left on device", "File too large")
        assert repository.open("shades").manifest.version == first
        assert sorted(each.name for each in directory.iterdir() if each.name.startswith(".")) == [
            ".lock",
            ".publishing.lock",
        ]
    assert refused > 8
    assert repository.open("shades").manifest.version == repository.versions("shades")[-1] != first


def test_a_command_that_cannot_publish_for_want_of_room_says_so_in_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("dark\ngrey\nlight\n")
    torch.jit.save(torch.jit.script(Silent()), tmp_path / "silent.pt")
    with small_disk(tmp_path / "disk") as disk:
        repository = Repository(disk.seen / "artifacts")
        before = publish(repository, "shades").manifest.version
        disk.fill(OWN_PID)
        model = ("import", str(tmp_path / "silent.pt"), "--labels", str(tmp_path / "labels.txt"), "--size", "8")
        place = ("--name", "shades", "--models-dir", str(disk.directory / "artifacts"))
        command = [*disk.through, sys.executable, "-m", "training", *model, *place]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
        said = capfd.readouterr().err
        assert said.splitlines()[-1] == "nothing was published: [Errno 28] No space left on device"
        assert "Traceback" not in said
        assert repository.open("shades").manifest.version == before
        assert repository.versions("shades") == [before]


def test_keys_that_cannot_be_written_whole_are_not_there_at_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        command = [*disk.through, sys.executable, "-m", "training", "keygen", str(disk.directory / "signing.key")]
        disk.fill(OWN_PID)
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
        assert capfd.readouterr().err.splitlines()[-1].endswith("cannot be written: No space left on device")
        assert not [each for each in disk.seen.iterdir() if each.name.startswith("signing")]
        disk.free(OWN_PID)
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        assert len([each for each in disk.seen.iterdir() if each.name.startswith("signing")]) == 2


@pytest.mark.parametrize(("where", "workers"), [("2>/dev/full", 1), ("2>&-", 1), ("0<&- 1>&- 2>&-", 2)])
def test_a_log_that_cannot_be_written_ends_nothing(shades: Repository, where: str, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = environment_without_settings()
    environment |= {"LANTERN_MODELS_DIR": str(shades.root), "LANTERN_PORT": str(port)}
    environment |= {"LANTERN_DRAIN_GRACE_S": "0", "LANTERN_WORKERS": str(workers)}
    command = ["sh", "-c", f'exec "$0" -m app {where}', sys.executable]
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as service,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:

            def is_ready() -> bool:
                assert service.poll() is None, "it has ended"
                try:
                    return client.get("/health/ready").status_code == 200
                except httpx.ConnectError:
                    return False

            until(is_ready)
            for _ in range(20):
                assert ask(client, "shades", 0).status_code == 200
            # What a library prints goes into no connection and no file.
            assert Path(f"/proc/{service.pid}/fd/2").readlink() in (Path("/dev/full"), Path("/dev/null"))
            service.terminate()
            assert service.wait(20) == 0
        finally:
            service.kill()
