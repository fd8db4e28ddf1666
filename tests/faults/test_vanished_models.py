"""A directory of models that vanishes or is damaged while it is served: what is live serves on, and says why."""

import os
import shutil
import signal
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from models.repository import Repository
from tests.bundles import Always, publish
from tests.faults.asking import PATIENCE_S, PNG, asked_all_along, until_more
from tests.faults.disks import unprivileged
from tests.images import png
from tests.servers import Process, process, until

Harm = Callable[[Path], None]


def remove(root: Path) -> None:
    shutil.rmtree(root)


def empty(root: Path) -> None:
    """As a volume that is unmounted leaves it."""
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def put_a_file_there(root: Path) -> None:
    remove(root)
    root.write_text("this is no directory")


def lock(root: Path) -> None:
    root.chmod(0)


def hide(root: Path) -> None:
    root.chmod(0o444)


def lock_all_below(root: Path) -> None:
    for entry in root.iterdir():
        entry.chmod(0)


def damage_current(root: Path) -> None:
    for current in root.glob("*/CURRENT"):
        current.write_bytes(b"\xff\x00 garbage" * 1000)


def put_a_directory_for_current(root: Path) -> None:
    for current in root.glob("*/CURRENT"):
        current.unlink()
        current.mkdir()


def remove_versions(root: Path) -> None:
    for directory in root.glob("*/*.*"):
        if directory.is_dir():
            shutil.rmtree(directory)


HARMS = (
    remove, empty, put_a_file_there, lock, hide, lock_all_below, damage_current, put_a_directory_for_current,
    remove_versions,
)  # fmt: skip


@pytest.fixture
def kept(repository: Repository, tmp_path: Path) -> Path:
    """A copy of a repository with two models, of which one is the default."""
    publish(repository, "shades", Always(0))
    publish(repository, "other", Always(1))
    repository.set_default("image", "shades")
    return Path(shutil.copytree(repository.root, tmp_path / "kept"))


def bring_back(kept: Path, root: Path) -> None:
    if root.is_dir():
        root.chmod(0o755)
        for entry in root.iterdir():
            entry.chmod(0o755)
    if root.exists():
        root.rename(root.with_name(f"damaged-{uuid.uuid4().hex}"))
    shutil.copytree(kept, root.with_name("whole"))
    root.with_name("whole").rename(root)


def refusals(service: Process) -> dict[str, str | None]:
    """Model -> what the service says is wrong with it."""
    models = service.client.get("/health/ready").json()["models"]
    return {name: state["refused"] and state["refused"]["detail"] for name, state in models.items()}


def is_live(service: Process, version: str) -> bool:
    return bool(service.client.get("/models/shades").json()["version"] == version)


def is_told(service: Process, said: int) -> bool:
    """Whether the service said of a version that it is refused, after so many lines."""
    return "is refused" in "".join(service.lines[said:])


def told(service: Process) -> int:
    """How many worker processes have said that the models are gone."""
    return sum("holds no model any more" in line for line in service.lines)


def workers_of(service: Process) -> list[int]:
    pid = service.popen.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_is_live_serves_on_and_publishing_works_again(repository: Repository, kept: Path) -> None:
    root = repository.root
    with process(root, through=unprivileged(), reload_interval_s=0.05, cpu_threads=2) as service:
        client = service.until_ready().client
        # There are several for images: the default must not be forgotten.
        with asked_all_along(service, None) as of_default, asked_all_along(service, "other") as of_other:
            for harm in HARMS:
                bring_back(kept, root)
                until(lambda: set(refusals(service).values()) == {None}, PATIENCE_S)
                said = len(service.lines)
                harm(root)
                until(lambda: None not in refusals(service).values(), PATIENCE_S)
                assert set(refusals(service)) == {"shades", "other"}
                # Its log is read by a thread of its own.
                until(partial(is_told, service, said), PATIENCE_S)
                assert client.get("/health/ready").status_code == 200
                until_more(of_default)
                until_more(of_other)
                bring_back(kept, root)
                latest = publish(repository, "shades", Always(2)).manifest.version
                until(partial(is_live, service, latest), PATIENCE_S)
                until(lambda: set(refusals(service).values()) == {None}, PATIENCE_S)
                until_more(of_default)
        assert set(of_default) == set(of_other) == {200}
    assert not [line for line in service.lines if "Traceback" in line]


def test_a_worker_that_dies_meanwhile_takes_nobody_along(repository: Repository, kept: Path) -> None:
    root = repository.root
    with process(root, workers=2, reload_interval_s=0.05, cpu_threads=2) as service:
        client = service.until_ready().client
        until(lambda: "lantern_worker_processes 2.0" in client.get("/metrics").text, PATIENCE_S)
        remove(root)
        until(lambda: told(service) == 2, PATIENCE_S)
        os.kill(workers_of(service)[0], signal.SIGKILL)
        # The one in its place finds nothing to load.
        until(lambda: told(service) == 3, PATIENCE_S)
        assert len(workers_of(service)) == 2
        for _ in range(20):  # Each over a connection of its own.
            assert httpx.post(f"{client.base_url}/predict", content=png(0), headers=PNG).status_code == 200
        assert "lantern_worker_processes 1.0" in client.get("/metrics").text
        assert client.get("/health/ready").status_code == 200
        bring_back(kept, root)
        until(lambda: "lantern_worker_processes 2.0" in client.get("/metrics").text, PATIENCE_S)
