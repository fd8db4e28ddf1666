"""The README's commands, run; its answers, compared with what really comes back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import CliApp, get_subcommand
from torch import Tensor, nn

from models.repository import Repository
from tests.bundles import decoding, publish, publish_texts
from tests.servers import ROOT, Process, process, until
from training.commands import (
    Command,
    CompareOptions,
    FashionOptions,
    ImageFolderOptions,
    KeygenOptions,
    OptimizeOptions,
    PairTableOptions,
    TextTableOptions,
)
from training.datasets.fashion_mnist import LABELS

README = (ROOT / "README.md").read_text()
EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n```sh\n(.*?)```\n```json\n(.*?)```", re.DOTALL)


class TenShades(nn.Module):
    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.float().mean(dim=(1, 2, 3)).unsqueeze(1)
        return (brightness_N1 @ brightness_N1.new_ones(1, 10)).softmax(1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose models have the starter set's names, labels and inputs, but not its training."""
    repository = Repository(tmp_path_factory.mktemp("readme"))
    publish(repository, "fashion", TenShades(), LABELS, decode=decoding(size=(28, 28)))
    publish(repository, "imagenet", decode=decoding(color="RGB"))
    publish_texts(repository, "reviews", labels=("negative", "positive"))
    repository.set_default("image", "imagenet")
    repository.set_default("text", "reviews")
    with process(repository.root) as running:
        yield running.until_ready()


def shape(answer: Any) -> Any:
    """An answer's structure: names and types, not values."""
    if isinstance(answer, dict):
        return {key: shape(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [shape(value) for value in answer]
    return "number" if isinstance(answer, int | float) else type(answer).__name__


def test_there_is_an_example_for_every_kind_of_body() -> None:
    assert [name for name, _, _ in EXAMPLE.findall(README)] == ["raw", "form", "json", "text", "problem"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples are for curl")
@pytest.mark.parametrize(("name", "command", "answer"), EXAMPLE.findall(README))
def test_an_example_runs_and_answers_as_shown(service: Process, name: str, command: str, answer: str) -> None:
    here = command.replace("http://127.0.0.1:8000", str(service.client.base_url).rstrip("/"))
    finished = subprocess.run(["bash", "-c", here], cwd=ROOT, capture_output=True, text=True, check=True)
    found, shown = json.loads(finished.stdout), json.loads(answer)
    assert shape(found) == shape(shown)
    if name == "problem":
        assert {**found, "request_id": ""} == {**shown, "request_id": ""}


def test_the_answers_shown_are_those_of_the_right_labels() -> None:
    answers = {name: json.loads(answer) for name, _, answer in EXAMPLE.findall(README)}
    assert answers["raw"]["predictions"][0]["label"] == "daisy"
    assert answers["form"]["predictions"][0]["label"] == "Trouser"
    assert answers["json"]["predictions"][0]["label"] == "Pullover"
    assert answers["text"]["predictions"][0]["label"] == "negative"


def test_every_make_target_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert {"serve", "test", "train", "data", "help"} <= named <= targets


def test_make_help_lists_the_targets() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "data", "train", "serve", "test", "check", "help"):
        assert re.search(rf"^{target} +\w", text, re.MULTILINE)


def test_every_training_command_is_understood() -> None:
    lines = re.findall(r"^\.venv/bin/python -m training (.+)$", README, re.MULTILINE)
    commands = [CliApp.run(Command, cli_args=line.split()) for line in lines]
    options = [get_subcommand(command) for command in commands]
    own = {ImageFolderOptions, TextTableOptions, PairTableOptions, FashionOptions, CompareOptions, OptimizeOptions}
    assert {type(each) for each in options} == own | {KeygenOptions}
    fashion = next(each for each in options if isinstance(each, FashionOptions))
    assert (fashion.default, fashion.epochs) == (True, 12)


def test_every_module_named_can_be_run() -> None:
    modules = set(re.findall(r"python -m ([a-z_.]+)", README))
    assert modules == {
        "app",
        "app.new_key",
        "training",
        "models.rollback",
        "models.rollout",
        "benchmarks.starter",
    }
    for module in modules:
        subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, check=True)


def test_every_file_linked_is_there() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).is_file()


@pytest.mark.skipif(not (ROOT / ".venv/.ready").exists(), reason="the tests run outside make's .venv")
def test_make_serve_serves_what_is_published_at_once(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    publish(repository, "shades")
    environment = os.environ | {
        "LANTERN_MODELS_DIR": str(tmp_path),
        "LANTERN_PORT": "0",
        "LANTERN_DRAIN_GRACE_S": "0",
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        make = subprocess.Popen(
            ["make", "serve"], cwd=ROOT, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        until(lambda: "shades" in log.read_text() and "is live" in log.read_text())
        os.killpg(make.pid, signal.SIGINT)
        make.wait(30)
        assert "drained" in log.read_text()
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()
