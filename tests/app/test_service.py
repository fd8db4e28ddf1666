from pathlib import Path

import pytest

from app.service import available_cpus


@pytest.mark.parametrize(
    ("text", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("junk", None), ("max 100000", None)]
)
def test_a_containers_quota_limits_the_cpus(tmp_path: Path, text: str, cpus: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    unlimited = available_cpus(tmp_path / "absent")
    assert available_cpus(file) == (cpus or unlimited)
    assert unlimited >= 1
