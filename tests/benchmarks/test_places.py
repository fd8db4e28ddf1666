"""What is published for a workload."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.places import lay_out
from benchmarks.workloads import WORKLOADS, Workload


@pytest.mark.parametrize("wanted", [True, False])
def test_faster_forms_are_made_only_where_somebody_serves_them(
    tmp_path: Path, wanted: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny = WORKLOADS["tiny"]
    assert isinstance(tiny, Workload)

    # Too few pictures to judge by: it is tried, and says so.
    lay_out(replace(tiny, optimize=("--data", str(Path("docs", "images")))), tmp_path, optimize=wanted)

    assert ("held-out examples to judge by" in capfd.readouterr().err) == wanted
