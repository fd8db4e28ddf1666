from collections.abc import Callable

from app.schemas import ImageLimits, Metadata, ModelInfo, ModelList
from models.repository import Repository
from tests.bundles import Always, decoding, publish
from tests.servers import Running, until

Serve = Callable[..., Running]


def test_a_live_model_says_what_it_is_and_takes(shades: Repository, serve: Serve) -> None:
    response = serve(max_batch_size=4, max_image_pixels=5000).until_ready().client.get("/models/shades")
    info = ModelInfo.model_validate_json(response.content)
    bundle = shades.open("shades")
    assert (info.name, info.ready, info.version) == ("shades", True, bundle.manifest.version)
    assert info.labels == ["dark", "grey", "light"]
    assert info.max_batch_size == 4
    assert (info.device, info.backend) == ("cpu", "torchscript-fp32")
    assert info.manifest_sha256 == bundle.manifest_sha256
    assert info.metrics == {"test_accuracy": 1.0}
    assert isinstance(info.input, ImageLimits)
    assert (info.input.height, info.input.width, info.input.max_pixels) == (8, 8, 5000)


def test_the_models_own_limits_hold_when_they_are_tighter(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", decode=decoding(max_pixels=77))
    info = ModelInfo.model_validate_json(serve().until_ready().client.get("/models/shades").content)
    assert info.max_batch_size == 8
    assert isinstance(info.input, ImageLimits)
    assert info.input.max_pixels == 77


def test_every_model_is_listed(shades: Repository, serve: Serve) -> None:
    publish(shades, "always", Always(0))
    body = ModelList.model_validate_json(serve().until_ready().client.get("/models").content)
    assert [model.name for model in body.models] == ["always", "shades"]


def test_a_refused_model_is_listed_with_the_reason(shades: Repository, serve: Serve) -> None:
    (shades.open("shades").directory / "model.ts.pt").unlink()
    running = serve()
    until(lambda: bool(running.service.registry.refusals))
    info = ModelInfo.model_validate_json(running.client.get("/models/shades").content)
    assert not info.ready
    assert info.version is None
    assert info.refused is not None
    assert (info.refused.error, "model.ts.pt" in info.refused.detail) == ("FileMissing", True)


def test_an_unknown_model_is_not_found(shades: Repository, serve: Serve) -> None:
    response = serve().until_ready().client.get("/models/other")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_metadata_says_what_the_service_is_and_allows(shades: Repository, serve: Serve) -> None:
    body = Metadata.model_validate_json(serve(max_items=3).until_ready().client.get("/metadata").content)
    assert (body.name, body.device) == ("lantern", "cpu")
    assert body.default_models == {"image": "shades", "text": None}
    assert body.limits.max_items == 3
