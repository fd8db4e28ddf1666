"""Trainings as processes: cut off and gone on with, and in several processes at once."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from models.repository import Repository
from tests.end_to_end.commands import run_training, started, weights
from tests.verdicts import COLUMNS, write_table

SLICE = ("fashion", "--limit", "1500", "--batch-size", "64", "--precision", "fp32", "--min-accuracy", "0.2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


LONGER = (*SLICE, "--epochs", "4", "--ema-decay", "0.9")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run that nothing cut off has published."""
    root = tmp_path_factory.mktemp("whole")
    ended, output = run_training(root, *LONGER)
    assert ended == 0, output
    return root


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_cut_off_goes_on_to_the_very_same_model(
    tmp_path: Path, whole: Path, stop: signal.Signals, status: int
) -> None:
    with started(tmp_path, *LONGER) as running:
        assert running.stderr is not None
        assert any(line.startswith("epoch 2/4") for line in running.stderr), "it ended before it was cut off"
        running.send_signal(stop)
        said = running.stderr.read()
    assert running.returncode == status
    assert ("a training goes on with --resume" in said) == (stop == signal.SIGINT)
    assert Repository(tmp_path / "models").names() == []
    ended, output = run_training(tmp_path, *LONGER, "--resume")
    assert ended == 0, output
    assert re.search(r"going on from epoch [234],", output)
    expected, found = weights(whole, "fashion"), weights(tmp_path, "fashion")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_other_options_is_not_gone_on_from(tmp_path: Path) -> None:
    status, _ = run_training(tmp_path, *SLICE, "--epochs", "1", "--min-accuracy", "1")
    assert status == 1
    status, output = run_training(tmp_path, *SLICE, "--epochs", "2", "--resume")
    assert status == 1
    assert "is of a run with other options or data" in output


def test_two_processes_train_one_model_and_publish_it_once(tmp_path: Path) -> None:
    arguments = (*SLICE, "--epochs", "2")
    status, output = run_training(tmp_path, *arguments, python=(*TORCHRUN, "-m", "training"))
    assert status == 0, output
    assert output.count("published fashion/") == 1
    # One process speaks.
    assert len(re.findall(r"^epoch 1/2 \(21 steps\)", output, re.MULTILINE)) == 1
    bundle = Repository(tmp_path / "models").open("fashion")
    assert Repository(tmp_path / "models").versions("fashion") == [bundle.manifest.version]
    assert bundle.manifest.metrics["test_accuracy"] > 0.4
    status, output = run_training(tmp_path / "alone", *arguments)
    assert status == 0, output
    alone = Repository(tmp_path / "alone/models").open("fashion")
    together, apart = (json.loads(each.read("report.json")) for each in (bundle, alone))
    # The same split, and no example is evaluated twice.
    assert together["examples"] == apart["examples"]
    assert bundle.manifest.source.data_sha256 == alone.manifest.source.data_sha256
    assert sum(map(sum, together["test"]["confusion"])) == 1500
    assert together["training"]["examples"] == apart["training"]["examples"] == 2 * 21 * 64


def test_texts_are_trained_in_two_processes_too(tmp_path: Path) -> None:
    write_table(tmp_path / "own.csv")
    status, output = run_training(
        tmp_path, "text", "--data", str(tmp_path / "own.csv"), *COLUMNS, "--name", "verdicts",
        "--precision", "fp32", "--epochs", "4", "--batch-size", "32", "--min-accuracy", "0.9",
        python=(*TORCHRUN, "-m", "training"),
    )  # fmt: skip
    assert status == 0, output
    assert output.count("published verdicts/") == 1
