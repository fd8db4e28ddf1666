import asyncio
from pathlib import Path

import pytest

from app import service
from app.service import Service, available_cpus
from app.settings import Settings
from app.spare_time import SpareTime
from models.repository import Repository
from tests.bundles import publish


@pytest.mark.parametrize(
    ("text", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("junk", None), ("max 100000", None)]
)
def test_a_containers_quota_limits_the_cpus(tmp_path: Path, text: str, cpus: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    unlimited = available_cpus(tmp_path / "absent")
    assert available_cpus(file) == (cpus or unlimited)
    assert unlimited >= 1


def test_worker_processes_share_the_cpus_and_the_memory_of_bodies(tmp_path: Path) -> None:
    shared = Service(Settings(models_dir=tmp_path, workers=2, max_body_bytes=1024, max_buffered_bytes=4096))
    assert shared.budget.capacity_bytes == 2048
    assert shared._workers.threads == max(1, available_cpus() // 2)
    many = Service(Settings(models_dir=tmp_path, workers=64, max_body_bytes=1024, max_buffered_bytes=65536))
    assert many._workers.threads == 1
    told = Service(Settings(models_dir=tmp_path, workers=2, max_body_bytes=1024, cpu_threads=3))
    assert told._workers.threads == 3


def test_what_is_loaded_beside_others_does_it_in_their_spare_time(
    shades: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    class Counted(SpareTime):
        def pause(self) -> None:
            pauses[-1] += 1

    async def load_two() -> None:
        serving = Service(Settings(models_dir=shades.root))
        for _ in range(2):
            pauses.append(0)
            await serving.reloader.look()
            publish(shades, "shades")
        assert serving.registry.live.keys() == {"shades"}
        await serving.stop()

    monkeypatch.setattr(service, "SpareTime", Counted)
    asyncio.run(load_two())
    # Where nothing serves yet, nobody is to be waited for.
    assert pauses[0] == 0
    assert pauses[1] > 0
