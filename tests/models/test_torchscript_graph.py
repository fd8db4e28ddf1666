"""Axes: N images, C, H, W, K labels."""

import io

import pytest
import torch
from torch import Tensor

from models.torchscript_graph import TorchScriptGraph
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
    with pytest.raises(RuntimeError):
        TorchScriptGraph(b"this is no graph", CPU)


def test_the_cause_of_memory_running_out_is_passed_on() -> None:
    graph = TorchScriptGraph(script(Shades()), CPU)

    class Hungry:
        def __call__(self, _: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("simulated")

    graph._module = Hungry()
    with pytest.raises(torch.OutOfMemoryError):
        graph(images(1))


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
