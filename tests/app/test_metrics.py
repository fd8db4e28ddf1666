from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.repository import Repository
from tests.bundles import publish
from tests.images import png
from tests.servers import Running, until

PNG = {"Content-Type": "image/png"}


def samples(running: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = running.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(running: Running, name: str, **labels: str) -> float:
    return samples(running).get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def running(shades: Repository, serve: Callable[..., Running]) -> Running:
    return serve().until_ready()


def test_requests_are_counted_by_model_route_and_code(running: Running) -> None:
    version = running.client.get("/models/shades").json()["version"]
    running.client.post("/predict", content=png(0), headers=PNG)
    running.client.post("/predict", content=b"no image", headers=PNG)
    running.client.post("/predict", content=b"", headers={"Content-Type": "application/pdf"})
    own = {"model": "shades", "version": version, "route": "/predict"}
    assert value(running, "lantern_requests_total", code="ok", **own) == 1
    assert value(running, "lantern_requests_total", code="undecodable_image", **own) == 1
    nobody = {"model": "", "version": "", "route": "/predict"}
    assert value(running, "lantern_requests_total", code="unsupported_media_type", **nobody) == 1


def test_a_strangers_paths_and_models_make_no_series(running: Running) -> None:
    running.client.post("/models/zzz/predict", content=png(0), headers=PNG)
    running.client.get("/zzz")
    assert "zzz" not in running.client.get("/metrics").text
    nobody = {"model": "", "version": ""}
    assert value(running, "lantern_requests_total", route="unmatched", code="not_found", **nobody) == 1


def test_a_refusal_is_counted_for_the_model_that_refused(running: Running) -> None:
    version = running.client.get("/models/shades").json()["version"]
    running.service.refuse()
    running.client.post("/predict", content=png(0), headers=PNG)
    own = {"model": "shades", "version": version, "route": "/predict"}
    assert value(running, "lantern_requests_total", code="draining", **own) == 1


def test_items_batches_and_stages_are_measured(running: Running) -> None:
    version = running.client.get("/models/shades").json()["version"]
    running.client.post("/predict", files=[("file", png(0)), ("file", b"x"), ("file", png(9))])
    own = {"model": "shades", "version": version}
    assert value(running, "lantern_items_total", code="ok", **own) == 2
    assert value(running, "lantern_items_total", code="undecodable_image", **own) == 1
    assert value(running, "lantern_batch_size_sum", model="shades") == 2
    for stage in ("decode", "queue", "inference"):
        assert value(running, f"lantern_{stage}_seconds_count", model="shades") == 1
    assert value(running, "lantern_queue_items", model="shades") == 0
    assert value(running, "lantern_queue_capacity", model="shades") == 1024


def test_only_the_live_version_is_named(running: Running, shades: Repository) -> None:
    first = running.client.get("/models/shades").json()["version"]
    assert value(running, "lantern_model_info", model="shades", version=first) == 1
    second = publish(shades, "shades").manifest.version
    running.until_version("shades", second)
    until(lambda: value(running, "lantern_model_info", model="shades", version=second) == 1)
    assert value(running, "lantern_model_info", model="shades", version=first) == 0
    assert value(running, "lantern_model_loads_total", model="shades", result="loaded") == 2
