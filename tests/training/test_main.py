"""What the commands do with what they are told, before and after a training."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import training.__main__ as command_line
from models.repository import Repository
from tests.bundles import publish
from training.commands import FashionOptions
from training.config import Options
from training.errors import GateFailed


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["python -m training", *arguments])
    return command_line.main()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What was to be trained, instead of training it."""
    seen: list[Options] = []

    def note(options: Options) -> None:
        seen.append(options)

    for step in ("_train", "_import", "_optimize"):
        monkeypatch.setattr(command_line, step, note)
    return seen


def raising(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_the_starter_set_is_three_models(monkeypatch: pytest.MonkeyPatch, asked: list[Options]) -> None:
    assert run(monkeypatch, "--models-dir", "there") == 0
    assert [(each.name, str(each.models_dir), each.default) for each in asked] == [
        ("fashion", "there", False), ("reviews", "there", True), ("imagenet", "there", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("image", "--name", "own"), "--data: it has to be given\n"),
        (("fashion", "--epochs", "0"), "--epochs: Input should be greater than or equal to 1, got '0'\n"),
        (("compare", "text"), "--data: it has to be given\n"),
        (("compare",), "compare: say on what: fashion, reviews, pronounce, image, text, seq2seq\n"),
    ],
)
def test_a_wrong_command_line_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == complaint


def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments, "--help")
    return " ".join(capsys.readouterr().out.split())


def test_help_says_what_each_command_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helped(monkeypatch, capsys)
    assert "fashion Train an image classifier on Fashion-MNIST, and publish it. reviews Train" in text
    assert "list Show the recipes, architectures, optimizers and schedules." in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("fashion",), "Peak learning rate; another --optimizer brings its own. (default: 0.012)"),
        (("fashion",), "over few of your own, more. (default: 8; resnet 26)"),
        (("compare", "fashion"), "Peak learning rate; another --optimizer brings its own. --momentum"),
        (("image",), "over few of your own, more. (default: 20; any other 30; pretrained 8)"),
        (("text",), "Features a token. (default: 64; bag 8)"),
        (("pronounce",), "Most tokens written for one input. (default: 40)"),
        (("fashion",), "Of the weights, the order, augmentation and dropout. (default: 0)"),
    ],
)
def test_help_says_what_an_option_comes_to_that_is_not_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], said: str
) -> None:
    text = helped(monkeypatch, capsys, *command)
    assert said in text
    assert "null" not in text
    assert "factory" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--models-dir", "there", "fashion"), "there"),
        (("fashion", "--models-dir", "here"), "here"),
        (("--models-dir", "there", "fashion", "--models-dir", "here"), "here"),
    ],
)
def test_the_repository_can_be_named_before_and_after_the_command(
    monkeypatch: pytest.MonkeyPatch, asked: list[Options], arguments: tuple[str, ...], expected: str
) -> None:
    assert run(monkeypatch, *arguments) == 0
    assert [each.models_dir for each in asked] == [Path(expected)]


def test_control_c_ends_the_starter_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[Options] = []

    def interrupted(options: Options) -> None:
        begun.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_train", interrupted)
    monkeypatch.setattr(command_line, "_import", interrupted)
    assert run(monkeypatch) == 130
    assert [type(each) for each in begun] == [FashionOptions]
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_too_little_memory_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    monkeypatch.setattr(command_line, "_train", raising(error))
    assert run(monkeypatch, "fashion") == 1
    assert capsys.readouterr().err == "nothing was published: out of memory; a smaller --batch-size needs less\n"


@pytest.mark.parametrize(("command", "step"), [(("optimize", "fashion"), "_optimize"), (("imagenet",), "_import")])
def test_what_is_no_training_is_not_told_of_the_options_of_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], step: str
) -> None:
    monkeypatch.setattr(command_line, step, raising(MemoryError()))
    assert run(monkeypatch, *command) == 1
    assert capsys.readouterr().err == "nothing was published: out of memory\n"
    monkeypatch.setattr(command_line, step, raising(KeyboardInterrupt()))
    assert run(monkeypatch, *command) == 130
    assert capsys.readouterr().err == "interrupted: nothing was published\n"
    monkeypatch.setattr(command_line, step, raising(GateFailed("not good enough")))
    assert run(monkeypatch, *command) == 1
    assert capsys.readouterr().err == "nothing was published: not good enough\n"


def test_a_fault_of_lantern_is_not_taken_for_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_train", raising(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        run(monkeypatch, "fashion")


@pytest.mark.parametrize("arguments", [("imagenet",), ("optimize", "net"), ("compare", "fashion"), ("list",)])
def test_of_several_processes_one_does_what_is_no_training(
    monkeypatch: pytest.MonkeyPatch, asked: list[Options], arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(command_line, "_compare", lambda _: pytest.fail("compared"))
    monkeypatch.setattr(command_line, "_list", lambda: pytest.fail("listed"))
    assert run(monkeypatch, *arguments) == 0
    assert asked == []


def test_of_several_processes_only_the_first_makes_a_model_the_default(
    monkeypatch: pytest.MonkeyPatch, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = publish(repository, "shades")
    arguments = ("--models-dir", str(repository.root), "fashion", "--name", "shades", "--default")
    monkeypatch.setattr(command_line, "_train", lambda _: None)
    monkeypatch.setenv("RANK", "1")
    assert run(monkeypatch, *arguments) == 0
    assert (repository.defaults(), capsys.readouterr().out) == ({}, "")
    monkeypatch.setattr(command_line, "_train", lambda _: bundle)
    monkeypatch.setenv("RANK", "0")
    assert run(monkeypatch, *arguments) == 0
    assert repository.defaults() == {"image": "shades"}
    assert f"published shades/{bundle.manifest.version}" in capsys.readouterr().out
