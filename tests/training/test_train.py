import copy
import io
import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from models.device import choose_device
from tests.training.small import DECODING, State, dataset, options, same, state_of, task, trained
from training.architectures.convolutional import ConvNet
from training.checkpoint import Checkpoint
from training.config import ImageOptions, OptimizerName
from training.datasets.images import ImageDataset, LabelledImages
from training.distributed import Group
from training.errors import Diverged
from training.progress import Progress
from training.randomness import seed_here
from training.tasks.images import ImageClassification
from training.tasks.task import Phase
from training.train import train
from training.trained import joined


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(tmp_path: Path, precision: str) -> None:
    given = options(precision=precision)
    small = task(given)
    found = trained(tmp_path, small, given)
    assert found.precision == precision
    assert len(found.history) == 3
    assert max(epoch.validation_score for epoch in found.history) > 0.95
    assert found.history[-1].train_loss < found.history[0].train_loss
    assert found.parameters == sum(parameter.numel() for parameter in small.model.parameters())


RATES: dict[OptimizerName, float] = {
    "sgd": 0.05,
    "adam": 0.01,
    "adamw": 0.01,
    "muon": 0.01,
    "adagrad": 0.05,
    "rmsprop": 0.003,
}


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_every_optimizer_learns(tmp_path: Path, optimizer: OptimizerName) -> None:
    rate = {"lbfgs": 1.0, "gd": 0.3}.get(optimizer) or RATES[optimizer]
    epochs = {"lbfgs": 3, "gd": 60}.get(optimizer, 4)
    given = options(optimizer=optimizer, learning_rate=rate, epochs=epochs, weight_decay=0, schedule="constant")
    found = trained(tmp_path, task(given), given)
    assert max(epoch.validation_score for epoch in found.history) > 0.9
    assert found.history[-1].train_loss < 0.5 * found.history[0].train_loss


def taken_by(small: ImageClassification, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return a list that is told of the examples of each loss, as they are asked for."""
    taken: list[Tensor] = []
    loss = small.loss

    def noted(model: nn.Module, indices_N: Tensor, *, augment: bool) -> tuple[Tensor, Tensor]:
        taken.append(indices_N)
        return loss(model, indices_N, augment=augment)

    monkeypatch.setattr(small, "loss", noted)
    return taken


@pytest.mark.parametrize("optimizer", ["adamw", "gd"])
def test_what_was_trained_on_is_counted(tmp_path: Path, optimizer: OptimizerName) -> None:
    given = options(optimizer=optimizer, epochs=2)
    assert trained(tmp_path, task(given), given).examples == 2 * len(dataset().train)


def test_every_look_of_a_line_search_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(optimizer="lbfgs", learning_rate=1.0, epochs=1)
    small = task(given)
    looks = taken_by(small, monkeypatch)
    found = trained(tmp_path, small, given)
    assert found.examples == sum(map(len, looks)) > 2 * len(dataset().train)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_every_schedule_learns(tmp_path: Path, schedule: str) -> None:
    given = options(schedule=schedule)
    found = trained(tmp_path, task(given), given)
    assert max(epoch.validation_score for epoch in found.history) > 0.95


@pytest.mark.parametrize(
    ("changes", "also_without_augmenting"),
    [
        ({"mixup": 0.2}, False),
        ({"cutmix": 1.0}, False),
        ({"erase": 1.0}, False),
        ({"shift_pixels": 3}, False),
        ({"label_smoothing": 0.1}, True),
    ],
)
def test_every_aid_changes_the_loss_of_what_is_trained_on(
    changes: dict[str, Any], also_without_augmenting: bool
) -> None:
    def loss(augment: bool, **given: Any) -> float:
        small = task(options(flip=False, **given))
        seed_here(0, "aid")
        return small.loss(small.model, torch.arange(64), augment=augment)[0].item()

    assert loss(True, **changes) != loss(True)
    assert (loss(False, **changes) != loss(False)) == also_without_augmenting


def test_the_history_has_the_learning_rate_of_each_epochs_last_step(tmp_path: Path) -> None:
    given = options(epochs=3, learning_rate=0.02, warmup_fraction=0, schedule="cosine")
    rates = [epoch.learning_rate for epoch in trained(tmp_path, task(given), given).history]
    # Of 24 steps, after 7, 15 and 23.
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 24)) for step in (7, 15, 23)])


def test_a_training_that_diverges_stops_at_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = task(options())
    monkeypatch.setattr(small, "validate", lambda _: (math.nan, 0.5))
    with pytest.raises(Diverged, match="the validation loss of epoch 1 is nan; a smaller --learning-rate"):
        trained(tmp_path, small, options())


def test_of_a_training_that_diverges_late_the_best_epoch_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(epochs=9)
    small = task(given)
    losses = iter([1.0, 0.5, math.inf])
    monkeypatch.setattr(small, "validate", lambda _: (next(losses), 0.5))
    said = io.StringIO()
    found = train(small, given, Group(), Checkpoint(tmp_path, "identity"), Progress(said))
    assert (len(found.history), found.best_epoch) == (2, 1)
    assert "diverged: the validation loss of epoch 3 is inf; epoch 2 is kept" in said.getvalue()


def test_what_fills_no_batch_waits_for_another_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(epochs=1, batch_size=100)
    small = task(given)
    taken = taken_by(small, monkeypatch)
    trained(tmp_path, small, given)
    assert [len(indices_N) for indices_N in taken] == [100, 100]


def test_an_average_that_is_young_forgets_faster(tmp_path: Path) -> None:
    # An average of 0.999 would hardly have left where it began after 24 steps.
    averaged, plain = task(options(ema_decay=0.999)), task(options())
    begun = state_of(averaged)
    trained(tmp_path / "averaged", averaged, options(ema_decay=0.999))
    trained(tmp_path / "plain", plain, options())
    name = "network.features.0.weight"
    left = (state_of(averaged)[name] - begun[name]).norm()
    assert left > 0.3 * (state_of(plain)[name] - begun[name]).norm()


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0},
        {"erase": 1.0},
        {"label_smoothing": 0.1},
        {"clip_norm": 0.5},
        {"ema_decay": 0.9},
    ],
)
def test_it_learns_with_every_aid(tmp_path: Path, changes: dict[str, Any]) -> None:
    given = options(epochs=5, **changes)
    found = trained(tmp_path, task(given), given)
    assert max(epoch.validation_score for epoch in found.history) > 0.9


def test_the_gradient_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            with torch.enable_grad():
                loss = closure()
            gradients = [each.grad for group in self.param_groups for each in group["params"]]
            norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
            return loss

    monkeypatch.setattr("training.optimizers.SGD", Watched)
    given = options(optimizer="sgd", epochs=1, clip_norm=0.01)
    trained(tmp_path, task(given), given)
    assert norms
    assert max(norms) <= 0.01 * (1 + 1e-4)


def state_after(tmp_path: Path, seed: int) -> State:
    """The weights after an epoch, from the same start: only order and augmentation follow the seed."""
    small = task(options())
    trained(tmp_path / str(seed), small, options(epochs=1, seed=seed))
    return state_of(small)


def test_the_seed_fixes_order_and_augmentation(tmp_path: Path) -> None:
    first, again, other = (state_after(tmp_path, seed) for seed in (5, 5, 6))
    assert same(first, again)
    assert not same(first, other)


def scores_given(small: ImageClassification, monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[State]:
    """Make validation give these scores, one an epoch; returns the weights at each."""
    left, states = iter(scores), list[State]()

    def validate(model: nn.Module) -> tuple[float, float]:
        states.append(copy.deepcopy(dict(model.state_dict())))
        return 1.0, next(left)

    monkeypatch.setattr(small, "validate", validate)
    return states


def test_the_best_epoch_on_validation_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = task(options())
    states = scores_given(small, monkeypatch, [0.5, 0.9, 0.7])
    assert trained(tmp_path, small, options()).best_epoch == 1
    assert same(state_of(small), states[1])
    assert not same(state_of(small), states[2])


def test_without_a_better_epoch_it_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(epochs=9, patience=2)
    small = task(given)
    scores_given(small, monkeypatch, [0.5, 0.9, 0.7, 0.8, 1.0])
    found = trained(tmp_path, small, given)
    assert (len(found.history), found.best_epoch) == (4, 1)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, averaged = task(options(epochs=2)), task(options(epochs=2))
    trained(tmp_path / "plain", plain, options(epochs=2))
    validated = scores_given(averaged, monkeypatch, [0.5, 0.9])
    trained(tmp_path / "averaged", averaged, options(epochs=2, ema_decay=0.9))
    assert same(state_of(averaged), validated[-1])
    assert not same(state_of(averaged), state_of(plain))


def test_the_test_set_is_not_looked_at(tmp_path: Path) -> None:
    class Untouchable(LabelledImages):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError("training looked at the test set")

    data = dataset()
    sealed = ImageDataset(
        data.labels, data.train, data.validation, Untouchable(torch.zeros(1), torch.zeros(1)), "0" * 64
    )
    given = options(epochs=1)
    trained(tmp_path, task(given, sealed), given)


def test_every_epoch_takes_every_example_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(epochs=2)
    small = task(given)
    taken = taken_by(small, monkeypatch)
    trained(tmp_path, small, given)
    first, second = torch.cat(taken[:8]), torch.cat(taken[8:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(256))
    assert not torch.equal(first, second)


def test_fewer_images_than_a_batch_still_train(tmp_path: Path) -> None:
    given = options(epochs=1, batch_size=1000)
    assert len(trained(tmp_path, task(given), given).history) == 1


def test_choosing_a_precision_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    given = options(epochs=1, precision="auto", ema_decay=0.9)
    chosen = task(given)
    precision = trained(tmp_path / "auto", chosen, given).precision
    assert precision in ("fp32", "bf16")
    named = task(given)
    trained(tmp_path / "named", named, options(epochs=1, precision=precision, ema_decay=0.9))
    assert same(state_of(chosen), state_of(named))


def test_a_budget_ends_a_run_within_an_epoch_or_after_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.state._step_s", lambda *_: 0.01)
    monkeypatch.setattr("training.state._validation_s", lambda *_: 0.005)
    # An epoch of 8 steps and its validation take 0.085 s.
    for budget_s, epochs, steps in ((0.001, 1, 1), (0.036, 1, 3), (0.172, 2, 16), (0.2, 3, 18)):
        given = options(budget_s=budget_s)
        seen = Counted()
        train(task(given), given, Group(), Checkpoint(tmp_path / str(budget_s), "x"), seen)
        assert (seen.epochs, seen.steps) == (epochs, steps)


class Counted(Progress):
    def __init__(self) -> None:
        super().__init__(io.StringIO(), silent=True)
        self.steps = self.epochs = 0

    def step(self, means: Tensor) -> None:
        self.steps += 1

    def end_epoch(self, validation_loss: float, validation_score: float) -> None:
        self.epochs += 1


def test_phases_are_told_as_one_training(tmp_path: Path) -> None:
    given = options(epochs=2)
    first, second = (trained(tmp_path / str(number), task(given), given) for number in range(2))
    both = joined([first, second])
    assert [epoch.train_loss for epoch in both.history[2:]] == [epoch.train_loss for epoch in second.history]
    assert both.history[both.best_epoch].validation_loss == second.history[second.best_epoch].validation_loss
    assert both.examples == first.examples + second.examples == 4 * len(dataset().train)
    assert both.elapsed_s == pytest.approx(first.elapsed_s + second.elapsed_s)
    assert both.history[2].elapsed_s == pytest.approx(first.elapsed_s + second.history[0].elapsed_s)


def test_phases_share_a_limited_time() -> None:
    phase = Phase("head", lambda: None, epochs=2)
    assert phase.options(options(budget_s=6), 3).budget_s == 2
    assert phase.options(options(), 3).budget_s is None
    assert phase.options(options(epochs=7), 3).epochs == 2
    assert Phase("all", lambda: None).options(options(epochs=7), 3).epochs == 7


def test_a_pretrained_network_trains_its_head_first_and_then_its_early_layers_slowest(tmp_path: Path) -> None:
    given = options(epochs=2, warmup_fraction=0, schedule="constant", weight_decay=0, optimizer="gd")
    network = ConvNet((1, 12, 12), 8, 2, widths=(4, 6, 8))
    mean_C, std_C = torch.zeros(1), torch.ones(1)
    pretrained = ImageClassification(dataset(), network, mean_C, std_C, DECODING, given, head_epochs=2)
    head, everything = pretrained.phases()
    assert (head.epochs, everything.epochs) == (2, None)
    before = state_of(pretrained)
    head.begin()
    trained(tmp_path / "head", pretrained, given)
    after = state_of(pretrained)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"network.head.3.weight", "network.head.3.bias"}
    everything.begin()
    names = [name for name, _ in pretrained.model.named_parameters()]
    rates = [pretrained.rate(name) for name in names]
    assert rates == sorted(rates)
    assert (round(rates[0], 2), rates[-1]) == (0.05, 1.0)
    trained(tmp_path / "all", pretrained, given)
    last = state_of(pretrained)
    assert all(not torch.equal(after[name], last[name]) for name in names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_takes_cuda(tmp_path: Path) -> None:
    device = choose_device("auto")
    assert device.type == "cuda"
    given = options(precision="auto")
    small = task(given)
    small.to(device)
    assert max(epoch.validation_score for epoch in trained(tmp_path, small, given).history) > 0.95


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(tmp_path: Path, stream: io.StringIO, given: ImageOptions) -> str:
    train(task(given), given, Group(), Checkpoint(tmp_path, "identity"), Progress(stream))
    return stream.getvalue()


@pytest.mark.parametrize("columns", ["0", "80", "200"])
def test_a_terminal_sees_a_bar_with_times_loss_and_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = told(tmp_path, Terminal(), options(epochs=2)).replace("\r", "\n").splitlines()
    for epoch in ("epoch 1/2", "epoch 2/2"):
        last = [line for line in shown if line.startswith(epoch)][-1]
        figures = r"loss \d\.\d{3} acc [\d.]+%, val \d\.\d{3} acc [\d.]+%"
        assert re.fullmatch(epoch + r" \|[^|]{8}\| \d\d:\d\d<00:00, " + figures, last), last


def test_a_file_gets_one_line_an_epoch(tmp_path: Path) -> None:
    lines = told(tmp_path, io.StringIO(), options(epochs=2)).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2 (8 steps): loss ")
