from pathlib import Path

import pytest

from app.service import Service, available_cpus
from app.settings import Settings


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
