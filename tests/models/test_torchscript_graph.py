"""Axes: N images, C, H, W, K labels."""

import io

import pytest
import torch
from torch import Tensor

from models.errors import ArchiveInvalid, DeviceLost
from models.torchscript_graph import TorchScriptGraph
from tests.archives import coded
from tests.bundles import Shades
from training.export import script

CPU = torch.device("cpu")


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_gives_what_the_model_gives_on_so_many_threads(threads: int) -> None:
    images_NCHW = images(5)
    scores_NK = TorchScriptGraph(script(Shades()), CPU)(images_NCHW, threads)
    assert torch.get_num_threads() == threads
    assert isinstance(scores_NK, Tensor)
    assert torch.allclose(scores_NK, Shades()(images_NCHW), atol=1e-6)


def test_what_is_no_torchscript_cannot_be_loaded() -> None:
    with pytest.raises(ArchiveInvalid, match="it is no zip file"):
        TorchScriptGraph(b"this is no graph", CPU)


def test_code_that_makes_no_sense_to_torch_cannot_be_loaded() -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        TorchScriptGraph(coded("    return self.nowhere"), CPU)


class Failing:
    """Fails as a graph does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, _: Tensor) -> Tensor:
        raise self.error


# As TorchScript's interpreter passes on what an operator raises: the class is lost.
PASSED_ON = "The following operation failed in the TorchScript interpreter.\nTraceback ...\nRuntimeError: "


def test_the_interpreter_loses_the_class_of_what_an_operator_raises() -> None:
    class Beyond(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.select(0, 99)

    with pytest.raises(IndexError):
        Beyond()(images(1))
    with pytest.raises(RuntimeError, match="failed in the TorchScript interpreter") as raised:
        TorchScriptGraph(script(Beyond()), CPU)(images(1))
    assert not isinstance(raised.value, IndexError)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(PASSED_ON + "CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(PASSED_ON + "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_too_little_memory_is_told_apart(error: Exception) -> None:
    graph = TorchScriptGraph(script(Shades()), CPU)
    graph._module = Failing(error)
    with pytest.raises(torch.OutOfMemoryError, match="memory"):
        graph(images(1))


def test_what_a_model_raises_is_passed_on() -> None:
    graph, error = TorchScriptGraph(script(Shades()), CPU), RuntimeError("shapes do not match")
    graph._module = Failing(error)
    with pytest.raises(RuntimeError) as raised:
        graph(images(1))
    assert raised.value is error


@pytest.mark.parametrize("works", [True, False])
def test_a_device_that_fails_is_asked_whether_it_still_works(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, asked = TorchScriptGraph(script(Shades()), CPU), []
    error = RuntimeError(PASSED_ON + "CUDA error: device-side assert triggered")
    graph._module = Failing(error)
    # Where nothing else is moved to it.
    graph._device = torch.device("meta")

    def synchronize(device: torch.device) -> None:
        asked.append(device)
        if not works:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    with pytest.raises(RuntimeError if works else DeviceLost) as raised:
        graph(images(1))
    assert error in (raised.value, raised.value.__cause__)
    assert asked == [torch.device("meta")]


class Halving(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool((x > 1).any()):
            x = x / 2
        return x


@pytest.mark.parametrize(("inner", "bounded"), [(Halving(), False), (torch.nn.ReLU(), True)])
def test_a_graph_with_a_loop_anywhere_in_it_is_not_bounded(inner: torch.nn.Module, bounded: bool) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), inner)), buffer)
    assert TorchScriptGraph(buffer.getvalue(), torch.device("cpu")).bounded == bounded
