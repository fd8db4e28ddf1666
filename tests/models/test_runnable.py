from typing import Any

import pytest
import torch
from torch import Tensor

from models.backend import Form
from models.errors import OperatorsNotAllowed
from models.openvino_graph import OpenVinoGraph
from models.repository import Repository
from models.runnable import runnable
from models.torchscript_graph import TorchScriptGraph
from tests.archives import coded
from tests.bundles import publish_with_openvino

CPU = torch.device("cpu")


def test_weights_packed_by_c_are_for_forms_that_say_they_are_in_int8() -> None:
    kind = "__torch__.torch.classes.quantized.LinearPackedParamsBase"
    content = coded(f"    packed : {kind} = ops.quantized.linear_prepack(x, None)\n    return x")
    fields: dict[str, Any] = {"id": "a", "format": "torchscript", "file": "model.ts.pt", "devices": ("cpu",)}
    assert runnable(Form(**fields, precision="int8"), lambda _: content, CPU).bounded
    with pytest.raises(OperatorsNotAllowed, match=r"classes::quantized\.LinearPackedParamsBase"):
        runnable(Form(**fields, precision="fp32"), lambda _: content, CPU)


def test_each_form_of_a_bundle_runs_as_what_it_is(repository: Repository) -> None:
    bundle = publish_with_openvino(repository, "shades")
    found = [runnable(backend, bundle.read, CPU) for backend in bundle.manifest.backends]
    assert [type(run) for run in found] == [OpenVinoGraph, TorchScriptGraph]
    images_NCHW = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    openvino_NK, torchscript_NK = (run(images_NCHW) for run in found)
    assert isinstance(openvino_NK, Tensor)
    assert isinstance(torchscript_NK, Tensor)
    assert torch.allclose(openvino_NK, torchscript_NK, atol=1e-5)
