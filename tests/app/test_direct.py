"""Routes that are called directly answer as FastAPI would, whose declarations they are."""

from collections.abc import Callable

import pytest

from models.repository import Repository
from tests.images import png
from tests.servers import Running

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def running(shades: Repository, serve: Callable[..., Running]) -> Running:
    return serve().until_ready()


def detail(running: Running, url: str) -> str:
    response = running.client.post(url, content=png(0), headers=PNG)
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "invalid_request"
    found: str = response.json()["detail"]
    return found


def test_query_parameters_are_read_as_they_are_declared(running: Running) -> None:
    assert detail(running, "/predict?top_k=0").startswith("query.top_k: ")
    assert detail(running, "/models/shades/predict?top_k=x").startswith("query.top_k: ")
    response = running.client.post("/predict?top_k=2&model=shades&unknown=1", content=png(0), headers=PNG)
    assert len(response.json()["predictions"][0]["top"]) == 2
    last_counts = running.client.post("/predict?top_k=2&top_k=1", content=png(0), headers=PNG)
    assert len(last_counts.json()["predictions"][0]["top"]) == 1


@pytest.mark.parametrize("path", ["/models/shades/predict", "/models/sh%61des/predict"])
def test_path_parameters_are_read(running: Running, path: str) -> None:
    assert running.client.post(path, content=png(0), headers=PNG).json()["model"] == "shades"


@pytest.mark.parametrize("path", ["/predict", "/models/shades/predict"])
def test_other_methods_are_told_which_one_is_taken(running: Running, path: str) -> None:
    response = running.client.get(path)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/predict/x", "/models/a/b/predict", "/models//predict", "/Predict"])
def test_what_is_no_route_is_none(running: Running, path: str) -> None:
    assert running.client.post(path, content=png(0), headers=PNG).json()["code"] in (
        "not_found",
        "model_not_found",
    )


def test_the_route_is_named_in_the_metrics(running: Running) -> None:
    running.client.post("/models/shades/predict", content=png(0), headers=PNG)
    assert 'route="/models/{name}/predict"' in running.client.get("/metrics").text
