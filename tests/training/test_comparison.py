"""Comparisons: a grid is trained under one budget, measured like what is published, and written down."""

import csv
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from pydantic_settings import CliApp, get_subcommand

from tests.training.small import options as small_options
from tests.training.small import silent, task
from training.commands import Command, TextTableOptions
from training.compare import run as comparing
from training.compare.budget import check_budget
from training.compare.combination import measure
from training.compare.comparison import Combination, Comparison, Result
from training.compare.curves import draw
from training.compare.grid import GridOptions
from training.compare.latency import latency_ms
from training.compare.run import compare
from training.config import OptimizerName
from training.errors import DataUnavailable, OptionInvalid
from training.export import Exported, script
from training.machine import this_machine
from training.tasks.task import Phase

CPU = torch.device("cpu")
PNG_MAGIC = b"\x89PNG"


def grid_of(*arguments: str) -> GridOptions:
    grid = get_subcommand(get_subcommand(CliApp.run(Command, cli_args=["compare", *arguments])))  # type: ignore[arg-type]
    assert isinstance(grid, GridOptions)
    return grid


def small_grid(root: Path, *arguments: str, archs: str = "bag,gru", optimizers: str = "adamw,sgd") -> GridOptions:
    table = root / "own.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number in range(300):
            writer.writerow([f"number {number} is {('low', 'high')[number % 2]}", ("down", "up")[number % 2]])
    return grid_of(
        "text", "--data", str(table), "--archs", archs, "--optimizers", optimizers, "--budget", "0.2s",
        "--batch-size", "32", "--precision", "fp32", "--device", "cpu", "--output", str(root / "out"), *arguments,
    )  # fmt: skip


def written(grid: GridOptions) -> tuple[Comparison, str]:
    files = sorted(path.name for path in grid.directory.iterdir())
    assert files == ["comparison.json", "comparison.md", "curves.png"]
    assert (grid.directory / "curves.png").read_bytes().startswith(PNG_MAGIC)
    comparison = Comparison.model_validate_json((grid.directory / "comparison.json").read_bytes())
    return comparison, (grid.directory / "comparison.md").read_text()


def made_up(validation: float, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "metric": "accuracy", "validation": validation, "validation_loss": 1.0, "test": {"test_accuracy": 0.5},
        "training_s": 2.0, "epochs": 1.5, "parameters": 1234, "learning_rate": 0.1, "precision": "fp32",
        "latency_1_ms": 0.25, "latency_32_ms": 4.0, "curve": [(1.0, 0.1), (2.0, validation)],
        "data_sha256": "0" * 64, "examples": {"train": 1000, "test": 10},
    }  # fmt: skip
    return Result(**fields | changes)


def comparison_of(*combinations: Combination, planned: int = 0) -> Comparison:
    return Comparison(
        recipe="fashion",
        planned=planned or len(combinations),
        budget_s=2,
        seed=3,
        options={"limit": 64},
        machine=this_machine(CPU),
        combinations=combinations,
    )


def test_every_combination_is_trained_on_one_split_and_nothing_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANTERN_MODELS_DIR", str(tmp_path / "models"))
    grid = small_grid(tmp_path)
    compared = compare(grid, silent())
    comparison, table = written(grid)
    assert comparison == compared
    assert [(each.arch, each.optimizer) for each in comparison.combinations] == [
        ("bag", "adamw"), ("bag", "sgd"), ("gru", "adamw"), ("gru", "sgd"),
    ]  # fmt: skip
    results = [result for _, result in comparison.finished()]
    assert len(results) == 4
    assert len({(result.data_sha256, json.dumps(result.examples)) for result in results}) == 1
    assert results[0].data_sha256 in table
    for result in results:
        assert {"test_accuracy", "test_nll"} <= result.test.keys()
        assert min(result.training_s, result.epochs, result.latency_1_ms, result.latency_32_ms) > 0
        assert result.curve[-1][0] <= result.training_s
        assert result.validation == max(value for _, value in result.curve)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own.csv"]


def test_a_task_of_two_phases_has_one_budget_and_one_curve() -> None:
    given = small_options(budget_s=0.5, epochs=1000)
    small = task(given)
    begun: list[str] = []
    phases = [Phase(name, lambda name=name: begun.append(name)) for name in ("head", "all")]  # type: ignore[misc]
    small.phases = lambda: phases  # type: ignore[method-assign]
    result = measure(small, given, CPU)
    assert begun == ["head", "all"]
    seconds = [at_s for at_s, _ in result.curve]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= result.training_s


def test_optimizers_begin_with_the_same_weights_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, trained = [], []

    def note(task: Any, options: Any, device: torch.device) -> Result:
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()]))
        trained.append(options)
        return measure(task, options, device)

    monkeypatch.setattr(comparing, "measure", note)
    compare(small_grid(tmp_path, "--seed", "5", archs="bag"), silent())
    assert torch.equal(*weights)
    assert [options.seed for options in trained] == [5, 5]


def test_each_optimizer_takes_its_own_learning_rate_unless_one_is_given(tmp_path: Path) -> None:
    def rates(*arguments: str) -> list[float]:
        found = compare(small_grid(tmp_path, *arguments, archs="bag"), silent())
        return [each.result.learning_rate for each in found.combinations if each.result]

    # The recipe's for its own optimizer, and each other one's.
    assert rates() == [0.004, 0.05]
    assert rates("--learning-rate", "0.01") == [0.01, 0.01]


def test_a_combination_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "--weight-decay", "0.1", archs="nonsense,bag", optimizers="sgd,lbfgs")
    compare(grid, silent())
    comparison, table = written(grid)
    reasons = {(each.arch, each.optimizer): each.failed for each in comparison.combinations}
    assert "no 'nonsense'" in str(reasons["nonsense", "sgd"])
    assert reasons["nonsense", "sgd"] == reasons["nonsense", "lbfgs"]
    assert reasons["bag", "lbfgs"] == "--weight-decay: lbfgs takes none"
    assert reasons["bag", "sgd"] is None
    assert "## Failed" in table
    assert "lbfgs takes none" in table


def test_a_combination_that_diverges_is_a_row_with_its_reason(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "--learning-rate", "1e38", "--clip-norm", "0", archs="bag", optimizers="sgd")
    (only,) = compare(grid, silent()).combinations
    assert only.failed is not None
    assert only.failed.startswith("diverged: ")
    assert "diverged" in written(grid)[1]


def test_an_unforeseen_error_does_not_end_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Result:
        raise IndexError("index 7 is out of range\nand more")

    monkeypatch.setattr(comparing, "measure", fail)
    compared = compare(small_grid(tmp_path), silent())
    assert [each.failed for each in compared.combinations] == ["IndexError: index 7 is out of range"] * 4


def test_ctrl_c_leaves_what_is_known_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter([made_up(0.5), made_up(0.75)])

    def interrupted(*_: object) -> Result:
        if (result := next(results, None)) is None:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(comparing, "measure", interrupted)
    grid = small_grid(tmp_path)
    assert not compare(grid, silent()).is_whole
    comparison, table = written(grid)
    assert [each.optimizer for each in comparison.combinations] == ["adamw", "sgd"]
    assert table.startswith("# Comparison: text (2 of 4 so far)\n")


@pytest.mark.parametrize("place", ["comparison.json", "curves.png"])
def test_where_nothing_can_be_written_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(comparing, "measure", lambda *_: pytest.fail("trained"))
    grid = small_grid(tmp_path)
    (grid.directory / place).mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=place):
        compare(grid, silent())


def test_without_data_nothing_is_written(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    (tmp_path / "own.csv").unlink()
    with pytest.raises(DataUnavailable):
        compare(grid, silent())
    assert list(grid.directory.iterdir()) == []


def test_the_table_is_in_the_order_of_the_validation_metric() -> None:
    from training.compare.table import markdown

    table = markdown(
        comparison_of(
            Combination(arch="resnet", optimizer="gd", failed="a | b"),
            Combination(arch="convnet", optimizer="sgd", result=made_up(0.5, test={"test_accuracy": 0.9})),
            Combination(arch="convnet", optimizer="adam", result=made_up(0.7, test={"test_accuracy": 0.6})),
        )
    )
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("|")]
    assert rows[0][:4] == ["| architecture", "optimizer", "validation accuracy", "test accuracy"]
    assert rows[2] == [
        "| convnet", "adam", "70.00%", "60.00%", "2.0", "1.5", "1,234", "0.25", "4.00 |",
    ]  # fmt: skip
    assert rows[3][1:4] == ["sgd", "50.00%", "90.00%"]
    assert r"a \| b" in table
    assert "must not be used for choosing" in table
    facts = this_machine(CPU)
    for fact in (
        facts.cpu,
        f"{facts.cores} cores",
        torch.__version__,
        facts.commit,
        "0" * 64,
        "seed: 3",
        "2 s of",
    ):
        assert fact is None or fact in table


def test_the_curves_have_a_panel_an_architecture_and_a_line_an_optimizer() -> None:
    archs, optimizers = ("bag", "lstm", "gru"), get_args(OptimizerName)
    figure = draw(
        comparison_of(
            *[
                Combination(arch=arch, optimizer=optimizer, result=made_up(0.5))
                for arch in archs
                for optimizer in optimizers
            ]
        )
    )
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == list(archs)
    colours = [{line.get_label(): line.get_color() for line in axes.get_lines()} for axes in panels]
    assert all(each == colours[0] for each in colours)
    assert len(set(colours[0].values())) == len(optimizers)


def test_curves_of_one_optimizer_or_of_nothing_can_be_drawn() -> None:
    both = [Combination(arch=arch, optimizer="sgd", result=made_up(0.5)) for arch in ("bag", "lstm")]
    (panel,) = [axes for axes in draw(comparison_of(*both)).axes if axes.get_title()]
    assert len(panel.get_lines()) == 2
    draw(comparison_of(Combination(arch="bag", optimizer="sgd", failed="it did")))


@pytest.mark.parametrize(("given", "seconds"), [("60s", 60), ("5m", 300), ("1h", 3600), ("90", 90), ("0.5m", 30)])
def test_a_budget_is_given_with_its_unit(given: str, seconds: float) -> None:
    grid = grid_of("fashion", "--budget", given, "--limit", "64")
    assert grid.budget == seconds
    assert grid.options("convnet").budget_s == seconds


@pytest.mark.parametrize(
    "arguments", [("--budget", "5x"), ("--budget", "0s"), ("--optimizers", "sgd,foo"), ("--limit", "1")]
)
def test_a_wrong_option_is_told_before_anything_is_trained(arguments: tuple[str, str]) -> None:
    with pytest.raises(ValidationError, match=arguments[0].removeprefix("--")):
        grid_of("fashion", *arguments)


@pytest.mark.parametrize(
    "argument",
    ["--epochs", "--arch", "--optimizer", "--min-accuracy", "--models-dir", "--feedback", "--candidate"],
)
def test_what_the_grid_decides_is_no_option(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        grid_of("fashion", argument, "1")
    assert argument in capsys.readouterr().err


def test_all_means_all() -> None:
    assert len(grid_of("fashion", "--optimizers", "all").optimizers) == 8
    assert comparing._archs(grid_of("fashion")) == ("convnet", "resnet")
    assert comparing._archs(grid_of("pronounce", "--archs", "all")) == ["seq2seq"]
    assert comparing._archs(grid_of("reviews")) == ["bag", "lstm", "gru", "transformer", "committee"]
    assert comparing._archs(grid_of("reviews", "--archs", "gru,bag,gru")) == ["gru", "bag"]


def test_the_gate_lets_every_model_through() -> None:
    fashion = grid_of("fashion").options("convnet", "sgd").model_dump()
    assert (fashion["min_accuracy"], fashion["arch"], fashion["optimizer"]) == (0.0, "convnet", "sgd")
    assert grid_of("pronounce").options("seq2seq").model_dump()["max_error_rate"] == 1.0
    text = grid_of("text", "--data", "own.csv", "--text-column", "what").options("bag")
    assert isinstance(text, TextTableOptions)
    assert (text.text_column, text.name) == ("what", "text")


@pytest.mark.parametrize("optimizer", ["gd", "lbfgs"])
def test_a_step_that_the_budget_has_no_room_for_is_not_begun(optimizer: OptimizerName) -> None:
    given = small_options(optimizer=optimizer, budget_s=1e-6)
    with pytest.raises(OptionInvalid, match="has no room for a step"):
        check_budget(task(given), given, CPU)
    check_budget(task(given), small_options(optimizer=optimizer, budget_s=1e6), CPU)
    check_budget(task(given), small_options(optimizer="sgd", budget_s=1e-6), CPU)


def test_the_latency_is_that_of_batches_padded_to_their_own_longest() -> None:
    seen: list[tuple[int, ...]] = []

    class Recorded(Exported):
        def run(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(batch.shape))
            return batch

    frozen = Recorded(script(torch.nn.Identity()))
    frozen.freeze(CPU)
    inputs_NL = torch.tensor([[2, 3, 0, 0], [2, 5, 3, 0], [2, 5, 5, 3]])
    assert latency_ms(frozen, inputs_NL, 1, CPU) > 0
    assert set(seen) == {(1, 2), (1, 3), (1, 4)}
    seen.clear()
    latency_ms(frozen, inputs_NL, 32, CPU)
    assert set(seen) == {(32, 4)}
