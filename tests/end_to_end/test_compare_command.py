"""python -m training compare as a process: finished, and cut short."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.end_to_end.commands import ENVIRONMENT, run
from tests.images import png
from tests.servers import ROOT
from tests.verdicts import COLUMNS, write_table
from training.compare.comparison import Comparison
from training.config import OptimizerName

FILES = ["comparison.json", "comparison.md", "curves.png"]


def compare_command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    write_table(root / "own.csv", rows=200)
    command = [sys.executable, "-m", "training", "compare", "text", "--data", str(root / "own.csv"), *COLUMNS]
    return subprocess.Popen(
        [*command, "--output", str(root / "out"), "--precision", "fp32", "--batch-size", "32", *arguments],
        cwd=ROOT, env=ENVIRONMENT, text=True,
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


@pytest.mark.parametrize(("recipe", "optimizers"), [("image", "all"), ("seq2seq", "muon,sgd")])
def test_optimizers_can_be_compared_on_images_and_pairs(tmp_path: Path, recipe: str, optimizers: str) -> None:
    if recipe == "image":
        for label, grey in (("night", 20), ("noon", 220)):
            (tmp_path / "own" / label).mkdir(parents=True)
            for number in range(60):
                (tmp_path / "own" / label / f"{number}.png").write_bytes(
                    png(grey + number % 15, (20 + number, 20))
                )
        arguments = ["--data", str(tmp_path / "own"), "--size", "16", "--archs", "convnet"]
    else:
        lines = [f"{first}{second}\t{second} {first}" for first in "abcdefgh" for second in "klmno"]
        (tmp_path / "own.tsv").write_text("\n".join(["source\ttarget", *lines]) + "\n")
        arguments = [
            "--data", str(tmp_path / "own.tsv"), "--tokens", "chars", "--target-tokens", "words", "--dim", "16",
            "--hidden-size", "16", "--layers", "1", "--max-steps", "4", "--beams", "2",
        ]  # fmt: skip
    status, said = run(
        "compare", recipe, *arguments, "--optimizers", optimizers, "--budget", "2s", "--precision", "fp32",
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert status == 0, said
    comparison = Comparison.model_validate_json((tmp_path / "out/comparison.json").read_bytes())
    assert comparison.failures() == []
    wanted = list(get_args(OptimizerName)) if optimizers == "all" else optimizers.split(",")
    assert [each.optimizer for each in comparison.combinations] == wanted


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
