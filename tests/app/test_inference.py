from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.inference import ModelUnusable, load
from models.errors import BundleError, GoldenMismatch
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


def test_the_tighter_batch_limit_applies(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    assert load(bundle, CPU, 64).max_batch_size == 8
    assert load(bundle, CPU, 3).max_batch_size == 3


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
