import copy
import io
import re
from typing import Any

import pytest
import torch

from models.device import choose_device
from training.architectures.convolutional import ConvNet
from training.classifier import Classifier, channel_statistics
from training.config import TrainingConfig
from training.datasets.images import ImageDataset, LabelledImages
from training.optimizers import adamw, cosine_with_warmup
from training.progress import Progress
from training.train import fastest_precision, train


def striped(count: int, seed: int) -> LabelledImages:
    """Noise with a bright half: the upper one is label 0, the lower label 1. Mirroring changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    images_NCHW = torch.randint(0, 100, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    labels_N = torch.arange(count) % 2
    images_NCHW[labels_N == 0, :, :6] += 100
    images_NCHW[labels_N == 1, :, 6:] += 100
    return LabelledImages(images_NCHW, labels_N)


@pytest.fixture
def dataset() -> ImageDataset:
    return ImageDataset(("up", "down"), striped(256, 0), striped(64, 1), striped(64, 2), "0" * 64)


def config(**changes: Any) -> TrainingConfig:
    fields: dict[str, Any] = {"epochs": 3, "batch_size": 32, "precision": "fp32"}
    return TrainingConfig(**fields | changes)


def fresh(dataset: ImageDataset, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    network = ConvNet((1, 12, 12), 8, 2, widths=(4, 6, 8))
    return Classifier(network, *channel_statistics(dataset.train.images_NCHW))


def silent(epochs: int = 3) -> Progress:
    return Progress(epochs, io.StringIO())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(dataset: ImageDataset, precision: str) -> None:
    trained = train(fresh(dataset), dataset, config(precision=precision), silent())
    assert trained.precision == precision
    assert len(trained.history) == 3
    assert max(epoch.validation_accuracy for epoch in trained.history) > 0.95
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def trained_state(dataset: ImageDataset, seed: int) -> dict[str, torch.Tensor]:
    """The weights after an epoch, from the same start: only order and augmentation follow the seed."""
    classifier = fresh(dataset)
    torch.manual_seed(torch.seed())
    train(classifier, dataset, config(epochs=1, seed=seed), silent())
    return copy.deepcopy(classifier.state_dict())


def test_the_seed_fixes_order_and_augmentation(dataset: ImageDataset) -> None:
    first, again, other = (trained_state(dataset, seed) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_best_epoch_on_validation_is_kept(dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import train as module

    accuracies = iter([0.5, 0.9, 0.7])
    states: list[dict[str, torch.Tensor]] = []
    classifier = fresh(dataset)

    def scripted_accuracy(*_: object) -> float:
        states.append(copy.deepcopy(classifier.state_dict()))
        return next(accuracies)

    monkeypatch.setattr(module, "accuracy_of", scripted_accuracy)
    trained = train(classifier, dataset, config(), silent())
    assert trained.best_epoch == 1
    assert all(torch.equal(value, states[1][name]) for name, value in classifier.state_dict().items())
    assert not all(torch.equal(value, states[2][name]) for name, value in classifier.state_dict().items())


def test_the_test_set_is_not_looked_at(dataset: ImageDataset) -> None:
    class Untouchable(LabelledImages):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError("training looked at the test set")

    sealed = ImageDataset(
        dataset.labels, dataset.train, dataset.validation, Untouchable(torch.zeros(1), torch.zeros(1)), "0" * 64
    )
    train(fresh(dataset), sealed, config(epochs=1), silent(1))


def test_fewer_images_than_a_batch_still_train(dataset: ImageDataset) -> None:
    trained = train(fresh(dataset), dataset, config(epochs=1, batch_size=1000), silent(1))
    assert len(trained.history) == 1


def test_choosing_a_precision_leaves_the_classifier_as_it_was(dataset: ImageDataset) -> None:
    classifier = fresh(dataset)
    before = copy.deepcopy(classifier.state_dict())
    assert fastest_precision(classifier, dataset.train, config()) in ("fp32", "bf16")
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_the_schedule_rises_to_the_peak_and_falls_to_nothing() -> None:
    optimizer = adamw(torch.nn.Linear(2, 2), learning_rate=1.0, weight_decay=0.1)
    schedule = cosine_with_warmup(optimizer, steps=100, warmup_fraction=0.1)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_schedule_bears_the_shortest_runs(steps: int) -> None:
    optimizer = adamw(torch.nn.Linear(2, 2), learning_rate=1.0, weight_decay=0.1)
    schedule = cosine_with_warmup(optimizer, steps, warmup_fraction=0.5)
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        assert 0 <= schedule.get_last_lr()[0] <= 1


def test_only_matrices_decay() -> None:
    network = ConvNet((1, 8, 8), 4, 2, widths=(2, 2, 2))
    decayed, free = adamw(network, 0.1, 0.5).param_groups
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_takes_cuda(dataset: ImageDataset) -> None:
    assert choose_device("auto").type == "cuda"
    classifier = fresh(dataset).to("cuda")
    trained = train(classifier, dataset, config(precision="auto"), silent())
    assert max(epoch.validation_accuracy for epoch in trained.history) > 0.95


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["0", "80", "200"])
def test_a_terminal_sees_a_bar_with_times_loss_and_accuracy(
    dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal = Terminal()
    train(fresh(dataset), dataset, config(epochs=2), Progress(2, terminal))
    shown = terminal.getvalue().replace("\r", "\n").splitlines()
    for epoch in ("epoch 1/2", "epoch 2/2"):
        last = [line for line in shown if line.startswith(epoch)][-1]
        assert re.fullmatch(
            epoch + r" \|[^|]{10}\| \d\d:\d\d<00:00, loss \d\.\d{3} acc [\d.]+%, val \d\.\d{3} acc [\d.]+%",
            last,
        )


def test_a_file_gets_one_line_an_epoch(dataset: ImageDataset) -> None:
    stream = io.StringIO()
    train(fresh(dataset), dataset, config(epochs=2), Progress(2, stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2 (8 steps): loss ")
