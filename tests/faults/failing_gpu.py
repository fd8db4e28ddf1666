"""`python -m app` on what fails like a GPU: at a batch of over two with a dark image, for good at a white one.

Run as `python -m tests.faults.failing_gpu` it is the service or the supervisor, as `python -m
tests.faults.failing_gpu CONTROL HANDOVER` a worker process.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from models import torchscript_graph

# As TorchScript's interpreter passes on what an operator raises.
PASSED_ON = (
    "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript\nRuntimeError: "
)
OUT_OF_MEMORY = PASSED_ON + "CUDA out of memory. Tried to allocate 2.00 GiB."
FAULT = PASSED_ON + "CUDA error: device-side assert triggered"
MOST_DARK, WHITE = 2, 255

lost: list[bool] = []


class Failing:
    """A graph that fails as one on such a GPU would."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.inlined_graph = graph.inlined_graph

    def __call__(self, images_NCHW: Tensor) -> Any:
        if images_NCHW.amax() == WHITE:
            lost.append(True)
        if lost:
            raise RuntimeError(FAULT)
        if len(images_NCHW) > MOST_DARK and images_NCHW.amin() == 0:
            raise RuntimeError(OUT_OF_MEMORY)
        return self._graph(images_NCHW)


def main() -> int:
    freeze = torch.jit.freeze
    vars(torch.jit)["freeze"] = lambda module: Failing(freeze(module))
    vars(torchscript_graph)["_works"] = lambda _device: not lost
    if len(sys.argv) > 1:
        from app.processes import worker_process

        return worker_process.main()
    from app.__main__ import main as serve
    from app.processes import child

    child.PROGRAM = "tests.faults.failing_gpu"
    return serve()


if __name__ == "__main__":
    sys.exit(main())
