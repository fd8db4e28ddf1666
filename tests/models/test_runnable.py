import torch
from torch import Tensor

from models.openvino_graph import OpenVinoGraph
from models.repository import Repository
from models.runnable import runnable
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import publish_with_openvino

CPU = torch.device("cpu")


def test_each_form_of_a_bundle_runs_as_what_it_is(repository: Repository) -> None:
    bundle = publish_with_openvino(repository, "shades")
    found = [runnable(backend, bundle.read, CPU) for backend in bundle.manifest.backends]
    assert [type(run) for run in found] == [OpenVinoGraph, TorchScriptGraph]
    images_NCHW = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    openvino_NK, torchscript_NK = (run(images_NCHW) for run in found)
    assert isinstance(openvino_NK, Tensor)
    assert isinstance(torchscript_NK, Tensor)
    assert torch.allclose(openvino_NK, torchscript_NK, atol=1e-5)
