from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from app import warm_up
from app.inference import LoadedModel, load
from models import torchscript_graph
from models.bundle import Bundle
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

    def perf_counter(self) -> float:
        return 3 * self.clock_s

    def thread_time(self) -> float:
        return self.clock_s


def test_what_serving_takes_of_a_warm_up_is_not_the_models_time(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up, "time", Busy())
    monkeypatch.setattr(TorchScriptGraph, "__call__", sized({1: 0.25, 2: 0.5}))
    loaded = load(publish(repository, "shades"), CPU, 2, threads=2)
    assert loaded.curve.mean_s(1) == pytest.approx(0.25)
    # Of several threads, each one's own time is not known.
    assert loaded.curve.mean_s(1, 2) == pytest.approx(0.25)


def test_a_load_pauses_between_all_its_pieces(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, done = publish(repository, "shades"), list[str]()
    scan = (torchscript_graph, "check_operators")
    for of, name in (scan, (torch.jit, "load"), (torch.jit, "freeze"), (TorchScriptGraph, "__call__")):
        monkeypatch.setattr(of, name, noted(getattr(of, name), done))
    load(bundle, CPU, 2, threads=2, pause=lambda: done.append("pause"))
    pieces = [what for what in done if what != "pause"]
    assert pieces[:4] == ["check_operators", "load", "freeze", "__call__"]
    assert not any({"pause"}.isdisjoint(pair) for pair in pairwise(done))


def noted(call: Callable[..., Any], done: list[str]) -> Callable[..., Any]:
    def noting(*arguments: Any, **options: Any) -> Any:
        done.append(call.__name__)
        return call(*arguments, **options)

    return noting


def test_others_may_load_in_a_pause(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    load(bundle, CPU, 1, pause=lambda: _load_on_another_thread(bundle))


def _load_on_another_thread(bundle: Bundle) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(load, bundle, CPU, 1).result(timeout=30)


class Versions:
    """Versions of one model, each loaded beside the one before; how long their batches take is told here."""

    def __init__(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        self._repository = repository
        self._patch = monkeypatch
        self.sizes: list[int] = []
        self.live: LoadedModel | None = None
        monkeypatch.setattr(warm_up, "time", Clock())

    def load(self, item_s: float, largest: int = 8) -> LoadedModel:
        self.sizes = []
        run = sized({size: item_s * (1 + size) / 2 for size in range(1, 9)})

        def counted(of: Any, images_NCHW: Tensor, threads: int = 1) -> Outputs:
            self.sizes.append(len(images_NCHW))
            return run(of, images_NCHW, threads)

        self._patch.setattr(TorchScriptGraph, "__call__", counted)
        self.live = load(publish(self._repository, "shades"), CPU, largest, threads=2, beside=self.live)
        return self.live


def test_a_version_like_the_one_that_serves_takes_over_what_is_known(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(repository, monkeypatch)
    first = versions.load(0.1)
    first.curve.record(4, 0.3)
    before_s = first.curve.mean_s(4)
    second = versions.load(0.11)
    # One item until it is warm, every other size once; and the golden check, twice.
    assert versions.sizes == [1, 1, 1, 2, 4, 8, 1, 1]
    assert second.curve.mean_s(4) == before_s
    assert second.curve.threads_for(1) == first.curve.threads_for(1)
    assert second.max_batch_size == 8
    second.curve.record(4, 9.0)
    assert first.curve.mean_s(4) == before_s


@pytest.mark.parametrize(
    ("item_s", "largest"), [(0.2, 8), (0.05, 8), (0.1, 4)], ids=["slower", "faster", "smaller"]
)
def test_a_version_unlike_the_one_that_serves_is_measured(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, item_s: float, largest: int
) -> None:
    versions = Versions(repository, monkeypatch)
    versions.load(0.1)
    second = versions.load(item_s, largest)
    assert second.curve.mean_s(1) == pytest.approx(item_s)
    assert second.curve.mean_s(4) == pytest.approx(item_s * 2.5)
    assert second.curve.mean_s(2, 2) == pytest.approx(item_s * 1.5)
    assert versions.sizes.count(4) >= 3


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
