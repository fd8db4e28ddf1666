from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from app import warm_up
from app.inference import load
from models.golden import Outputs
from models.repository import Repository
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import Shades, publish

CPU = torch.device("cpu")


@pytest.fixture
def ever_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size counts as faster than the one before, whatever this machine does meanwhile."""
    monkeypatch.setattr(warm_up, "_stopped_growing", lambda _: False)


def test_every_bucket_is_warmed_up_at_least_as_often_as_the_bundle_says(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = TorchScriptGraph.__call__

    def counted(self: Any, images_NCHW: Tensor, threads: int = 1) -> Outputs:
        sizes.append(len(images_NCHW))
        return real(self, images_NCHW, threads)

    monkeypatch.setattr(TorchScriptGraph, "__call__", counted)
    loaded = load(publish(repository, "shades"), CPU, 8)
    golden = sizes.pop()
    assert golden == 1
    assert sizes == sorted(sizes)
    assert [sizes.count(size) >= 3 for size in (1, 2, 4)] == [True] * 3
    assert loaded.max_batch_size == 8


def sized(seconds_by_size: dict[int, float]) -> Callable[..., Outputs]:
    """A model whose batches take so long, by the clock that the loader reads."""

    def run(_self: Any, images_NCHW: Tensor, threads: int = 1) -> Outputs:
        warm_up.time.clock_s += seconds_by_size[len(images_NCHW)]  # type: ignore[attr-defined]
        scores_NK: Tensor = Shades()(images_NCHW)
        return scores_NK

    return run


class Clock:
    clock_s = 0.0

    def perf_counter(self) -> float:
        return self.clock_s

    # Nobody is in the way.
    thread_time = perf_counter

    def sleep(self, _seconds: float) -> None:
        """Take no time."""


@pytest.mark.parametrize(
    ("rates", "largest"),
    [
        ((1000, 2000, 4000, 8000), 8),
        # No faster at 2, faster again at 4: of short batches two must be no faster.
        ((1000, 1000, 4000, 8000), 8),
        ((1000, 1000, 1000, 8000), 4),
        # Batches of over 50 ms are believed at once.
        ((10, 20, 30, 40), 8),
        ((10, 20, 20.5, 40), 4),
    ],
)
def test_sizes_are_warmed_up_until_throughput_stops_to_grow(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...], largest: int
) -> None:
    seconds = {size: size / rate for size, rate in zip((1, 2, 4, 8), rates, strict=True)}
    monkeypatch.setattr(warm_up, "time", Clock())
    monkeypatch.setattr(TorchScriptGraph, "__call__", sized(seconds))
    loaded = load(publish(repository, "shades"), CPU, 8)
    # What was not measured is believed to take as long an item as the largest that was.
    beyond_s = 8 * seconds[largest] / largest
    assert (loaded.curve.mean_s(8) == pytest.approx(beyond_s)) or largest == 8
    assert (loaded.curve.mean_s(8) == pytest.approx(seconds[8])) == (largest == 8)
    assert loaded.max_batch_size == 8


class Busy(Clock):
    """The machine serves meanwhile: what is run takes three times as long as it would."""

    slept_s = 0.0

    def perf_counter(self) -> float:
        return 3 * self.clock_s

    def thread_time(self) -> float:
        return self.clock_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def test_what_serving_takes_of_a_warm_up_is_not_the_models_time(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seconds = Busy(), {1: 0.25, 2: 0.5, 4: 1.0, 8: 2.0}
    monkeypatch.setattr(warm_up, "time", clock)
    monkeypatch.setattr(TorchScriptGraph, "__call__", sized(seconds))
    loaded = load(publish(repository, "shades"), CPU, 2, threads=2, rest=2.0)
    assert loaded.curve.mean_s(1) == pytest.approx(0.25)
    # Of several threads, each one's own time is not known.
    assert loaded.curve.mean_s(1, 2) == pytest.approx(0.25)
    # The golden check is no part of it.
    assert clock.slept_s == pytest.approx(2.0 * 3 * (clock.clock_s - 2 * 0.25))


def test_a_lone_batch_is_measured_on_more_threads_too(repository: Repository) -> None:
    used: set[int] = set()
    real = TorchScriptGraph.__call__

    def counted(self: Any, images_NCHW: Tensor, threads: int = 1) -> Outputs:
        used.add(threads)
        return real(self, images_NCHW, threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchScriptGraph, "__call__", counted)
        loaded = load(publish(repository, "shades"), CPU, 8, threads=2)
    assert used == {1, 2}
    assert loaded.curve.threads_for(1) in used


@pytest.mark.usefixtures("ever_faster")
def test_a_size_that_does_not_fit_the_memory_caps_the_batch(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TorchScriptGraph.__call__

    def small(self: Any, images_NCHW: Tensor, threads: int = 1) -> Outputs:
        if len(images_NCHW) > 4:
            raise torch.OutOfMemoryError("simulated")
        return real(self, images_NCHW, threads)

    monkeypatch.setattr(TorchScriptGraph, "__call__", small)
    assert load(publish(repository, "shades"), CPU, 8).max_batch_size == 4
