import logging
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from app.backends import usable
from app.inference import ModelUnusable, load
from app.settings import Precision
from models.backend import Backend, Requires
from models.manifest import Manifest, TensorSpec
from models.openvino_graph import OpenVinoGraph
from models.repository import Repository
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import Shades, openvino_backend, openvino_files, publish, publish_with_openvino
from tests.images import png
from tests.servers import Running
from training.export import script

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FORMS = (
    openvino_backend(id="openvino-int8", precision="int8"),
    openvino_backend(id="openvino-bf16", precision="bf16"),
    openvino_backend(id="openvino-fp32"),
)


@pytest.fixture
def manifest(repository: Repository) -> Manifest:
    return publish_with_openvino(repository, "shades", *FORMS).manifest


@pytest.mark.parametrize(
    ("precision", "wanted"),
    [
        ("auto", ["openvino-int8", "openvino-bf16", "openvino-fp32", "torchscript-fp32"]),
        ("int8", ["openvino-int8", "openvino-fp32", "torchscript-fp32"]),
        ("bf16", ["openvino-bf16", "openvino-fp32", "torchscript-fp32"]),
        ("fp32", ["openvino-fp32", "torchscript-fp32"]),
    ],
)
def test_the_precision_that_is_asked_for_comes_first_and_fp32_is_left(
    manifest: Manifest, precision: Precision, wanted: Sequence[str]
) -> None:
    assert [backend.id for backend in usable(manifest, CPU, precision)] == wanted


def test_torchscript_comes_last_wherever_the_bundle_lists_it(manifest: Manifest) -> None:
    turned = manifest.model_copy(update={"backends": tuple(reversed(manifest.backends))})
    assert [backend.id for backend in usable(turned, CPU, "auto")][-1] == "torchscript-fp32"


def test_what_the_device_or_the_processor_is_not_made_for_is_passed_over(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    strange = openvino_backend(requires=Requires(isa="made_up"))
    manifest = publish_with_openvino(repository, "shades", strange).manifest
    with caplog.at_level(logging.INFO):
        assert [backend.id for backend in usable(manifest, CPU, "auto")] == ["torchscript-fp32"]
    assert "openvino-fp32 of shades is passed over: the processor has no made_up" in caplog.text
    assert [backend.id for backend in usable(manifest, CUDA, "auto")] == ["torchscript-fp32"]


def test_a_faster_form_serves_and_is_shown(repository: Repository, serve: Callable[..., Running]) -> None:
    publish_with_openvino(repository, "shades")
    client = serve().until_ready().client
    assert client.get("/models/shades").json()["backend"] == "openvino-fp32"
    answers = [
        client.post("/predict", content=png(grey), headers={"Content-Type": "image/png"}).json()["predictions"][0]
        for grey in (0, 128, 255)
    ]
    assert [answer["label"] for answer in answers] == ["dark", "grey", "light"]


def test_it_gives_what_torchscript_gives(repository: Repository) -> None:
    bundle = publish_with_openvino(repository, "shades")
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8).unbind(0)
    loaded = [load(bundle, CPU, 8, threads=2, precision=precision) for precision in ("auto", "fp32")]
    plain = load(publish(repository, "plain"), CPU, 8)
    assert isinstance(loaded[0].run, OpenVinoGraph)
    assert isinstance(plain.run, TorchScriptGraph)
    for model in loaded:
        for threads in (1, 2):
            found, wanted = model.infer(images, threads), plain.infer(images)
            assert isinstance(found, Tensor)
            assert isinstance(wanted, Tensor)
            assert torch.allclose(found, wanted, atol=1e-5)


def _falls_back(repository: Repository, *backends: Backend, **files: bytes) -> None:
    paths = {f"model.openvino.{ending}": content for ending, content in files.items()}
    loaded = load(publish_with_openvino(repository, "shades", *backends, files=paths), CPU, 8)
    assert loaded.backend.id == "torchscript-fp32"


def test_torchscript_serves_where_the_library_is_not_installed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = publish_with_openvino(repository, "shades")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert load(bundle, CPU, 8).backend.id == "torchscript-fp32"
    assert "OpenVINO is not installed" in caplog.text


def test_torchscript_serves_where_the_other_form_cannot_be_loaded(repository: Repository) -> None:
    _falls_back(repository, xml=b"this is no graph")


def test_torchscript_serves_where_the_other_form_gives_other_scores(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    other = Shades()
    other.centres_1K[0, 1] = 0.8
    spec = TensorSpec(name="images", dtype="uint8", shape=("N", 1, 8, 8))
    graph, weights = openvino_files(script(other), spec).values()
    _falls_back(repository, xml=graph, bin=weights)
    assert "a golden score is off" in caplog.text


def test_a_model_without_any_form_for_the_device_says_so(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    only_cuda = bundle.manifest.torchscript.model_copy(update={"devices": ("cuda",)})
    object.__setattr__(bundle, "manifest", bundle.manifest.model_copy(update={"backends": (only_cuda,)}))
    with pytest.raises(ModelUnusable, match="none of its backends runs on cpu"):
        load(bundle, CPU, 8)
