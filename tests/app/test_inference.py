from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app import inference
from app.inference import ModelUnusable, load
from models.errors import BundleError, GoldenMismatch
from models.golden import Outputs
from models.repository import Repository
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import Shades, publish

CPU = torch.device("cpu")


def test_a_loaded_model_gives_the_scores_of_its_bundle(repository: Repository) -> None:
    images_NCHW = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    loaded = load(publish(repository, "shades"), CPU, 64)
    scores_NK = loaded.infer(images_NCHW.unbind(0))
    assert isinstance(scores_NK, Tensor)
    assert torch.allclose(scores_NK, Shades()(images_NCHW), atol=1e-6)


@pytest.fixture
def ever_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size counts as faster than the one before, whatever this machine does meanwhile."""
    monkeypatch.setattr(inference, "_stopped_growing", lambda _: False)


def test_the_tighter_batch_limit_applies(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    assert load(bundle, CPU, 64).max_batch_size == 8
    assert load(bundle, CPU, 3).max_batch_size == 3


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
        inference.time.clock_s += seconds_by_size[len(images_NCHW)]  # type: ignore[attr-defined]
        scores_NK: Tensor = Shades()(images_NCHW)
        return scores_NK

    return run


class Clock:
    clock_s = 0.0

    def perf_counter(self) -> float:
        return self.clock_s


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
    monkeypatch.setattr(inference, "time", Clock())
    monkeypatch.setattr(TorchScriptGraph, "__call__", sized(seconds))
    loaded = load(publish(repository, "shades"), CPU, 8)
    # What was not measured is believed to take as long an item as the largest that was.
    beyond_s = 8 * seconds[largest] / largest
    assert (loaded.curve.mean_s(8) == pytest.approx(beyond_s)) or largest == 8
    assert (loaded.curve.mean_s(8) == pytest.approx(seconds[8])) == (largest == 8)
    assert loaded.max_batch_size == 8


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


def test_a_model_that_fits_in_no_size_is_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Any, images_NCHW: Tensor, *threads: int) -> Tensor:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(TorchScriptGraph, "__call__", never)
    with pytest.raises(ModelUnusable, match="OutOfMemoryError"):
        load(publish(repository, "shades"), CPU, 8)


class Moody(nn.Module):
    """Good for one image, and only then."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        assert images_NCHW.shape[0] == 1
        return torch.full((1, 3), 1 / 3)


def test_a_model_that_fails_its_warm_up_is_refused(repository: Repository) -> None:
    with pytest.raises(ModelUnusable, match="torchscript-fp32"):
        load(publish(repository, "shades", Moody()), CPU, 8)


def test_a_model_without_a_backend_for_the_device_is_refused(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    backend = bundle.manifest.backends[0].model_copy(update={"devices": ("cuda",)})
    bundle = publish(repository, "shades", backends=(backend,))
    with pytest.raises(ModelUnusable, match="none of its backends runs on cpu"):
        load(bundle, CPU, 8)


def test_golden_scores_that_do_not_come_out_are_refused(repository: Repository) -> None:
    golden = publish(repository, "shades").manifest.golden[0]
    wrong = golden.model_copy(update={"scores": (1.0, 0.0, 0.0)})
    with pytest.raises(GoldenMismatch) as refused:
        load(publish(repository, "shades", golden=(wrong,)), CPU, 8)
    assert isinstance(refused.value, BundleError)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_scores_are_those_of_the_cpu(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    images_NCHW = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    on_cpu, on_cuda = (load(bundle, torch.device(name), 8).run(images_NCHW) for name in ("cpu", "cuda"))
    assert isinstance(on_cpu, Tensor)
    assert isinstance(on_cuda, Tensor)
    assert on_cuda.device.type == "cpu"
    assert torch.allclose(on_cpu, on_cuda, atol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 3), (1, 3, 1)])
def test_outputs_of_another_shape_are_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    loaded = load(publish(repository, "shades"), CPU, 1)
    monkeypatch.setattr(TorchScriptGraph, "__call__", lambda *_, **__: torch.zeros(shape))
    with pytest.raises(ValueError, match="for 1 items"):
        loaded.infer([torch.zeros((1, 8, 8), dtype=torch.uint8)])
