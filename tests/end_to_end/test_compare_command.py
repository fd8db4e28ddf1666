"""python -m training compare as a process: finished, and cut short."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.test_training_commands import COLUMNS, write_table
from tests.servers import ROOT
from training.compare.comparison import Comparison

FILES = ["comparison.json", "comparison.md", "curves.png"]


def compare_command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    write_table(root / "own.csv", rows=200)
    command = [sys.executable, "-m", "training", "compare", "text", "--data", str(root / "own.csv"), *COLUMNS]
    return subprocess.Popen(
        [*command, "--output", str(root / "out"), "--precision", "fp32", "--batch-size", "32", *arguments],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_grid_becomes_a_table_and_curves(tmp_path: Path) -> None:
    with compare_command(
        tmp_path, "--archs", "bag,nonsense", "--optimizers", "adam,gd", "--budget", "1s"
    ) as running:
        output, said = running.communicate()
    assert running.returncode == 0, said
    assert output == f"compared 4 combinations, of which 2 failed: {tmp_path / 'out'}\n"
    assert re.search(r"^\[1/4\] bag \+ adam: validation accuracy \d+\.\d\d%, ", said, re.MULTILINE)
    assert re.search(r"^\[4/4\] nonsense \+ gd: failed: --arch: no 'nonsense'", said, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_ctrl_c_ends_a_grid_with_what_is_known(tmp_path: Path) -> None:
    arguments = ("--archs", "bag", "--optimizers", "adam,sgd", "--budget", "3s")
    with compare_command(tmp_path, *arguments) as running:
        assert running.stderr is not None
        assert any(line.startswith("[1/2]") for line in running.stderr), "it ended before it was interrupted"
        running.send_signal(signal.SIGINT)
        last = running.stderr.read().splitlines()[-1]
    assert running.returncode == 130
    assert last == f"interrupted: 1 of 2 combinations are in {tmp_path / 'out'}"
    comparison = Comparison.model_validate_json((tmp_path / "out/comparison.json").read_bytes())
    assert [each.optimizer for each in comparison.combinations] == ["adam"]
