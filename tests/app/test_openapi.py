"""The OpenAPI document says what the service does: checked against what it really answers."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.api_keys import line_of, new_key
from app.errors import STATUS_BY_CODE, ServingError
from models.repository import Repository
from tests.images import png
from tests.open_inference.target import Target
from tests.servers import Running

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def running(shades: Repository, serve: Callable[..., Running]) -> Running:
    return serve().until_ready()


@pytest.fixture
def document(running: Running) -> dict[str, Any]:
    loaded: dict[str, Any] = running.client.get("/openapi.json").json()
    return loaded


def check(document: dict[str, Any], path: str, method: str, response: Any) -> None:
    described = document["paths"][path][method]["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].split(";")[0]
    assert media_type in described["content"], f"{path} {response.status_code} {media_type} is not documented"
    schema = described["content"][media_type]["schema"] | {"components": document["components"]}
    jsonschema.validate(response.json(), schema)


def test_every_answer_matches_its_schema(running: Running, document: dict[str, Any]) -> None:
    client = running.client
    version = client.get("/models/shades").json()["version"]
    for path, url in [
        ("/predict", "/predict"),
        ("/models/{name}/predict", "/models/shades/predict"),
        ("/models/{name}/versions/{version}/predict", f"/models/shades/versions/{version}/predict"),
    ]:
        check(document, path, "post", client.post(url, content=png(0), headers=PNG))
        check(document, path, "post", client.post(url, files=[("file", png(0)), ("file", b"x")]))
        check(document, path, "post", client.post(url, content=b"x", headers=PNG))
        check(document, path, "post", client.post(url, content=b"x", headers={"Content-Type": "a/b"}))
        check(document, path, "post", client.post(url, json={"instances": []}))
    for path in ("/models", "/metadata", "/health/live", "/health/ready"):
        check(document, path, "get", client.get(path))
    check(document, "/models/{name}", "get", client.get("/models/shades"))
    check(document, "/models/{name}", "get", client.get("/models/zzz"))
    running.service.leave()
    check(document, "/health/ready", "get", client.get("/health/ready"))


def test_every_answer_of_the_open_inference_protocol_matches_its_schema(
    running: Running, document: dict[str, Any]
) -> None:
    asked = Target(running.client, "shades")
    version = asked.metadata["versions"][0]
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", model, versioned, f"{model}/ready"):
        check(document, path, "get", running.client.get(path.format(name="shades", version=version)))
    for path in (model, f"{versioned}/ready"):
        check(document, path, "get", running.client.get(path.format(name="zzz", version="1")))
    check(document, f"{model}/infer", "post", asked.infer(asked.request()))
    check(document, f"{versioned}/infer", "post", asked.infer(asked.request(), f"/versions/{version}"))
    check(document, f"{model}/infer", "post", asked.infer({}))
    taken = document["paths"][f"{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(asked.request(), taken | {"components": document["components"]})
    tensor = asked.tensor(asked.values())
    twice, nowhere = tensor | {"parameters": {"binary_data_size": 64}}, {**tensor, "data": None}
    bad: dict[str, Any]
    for bad in ({"inputs": []}, {"inputs": [twice]}, {"inputs": [nowhere]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, taken | {"components": document["components"]})
        assert asked.infer(bad).status_code == 400
    example = document["paths"][f"{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
    check(document, f"{model}/infer", "post", answered := asked.infer(example))
    assert answered.status_code == 200, answered.text
    running.service.leave()
    check(document, "/v2/health/ready", "get", running.client.get("/v2/health/ready"))


def test_every_kind_of_body_is_documented_and_its_example_is_taken(
    running: Running, document: dict[str, Any]
) -> None:
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {"image/jpeg", "image/png", "multipart/form-data", "text/plain", "application/json"} <= set(content)
    schema = content["application/json"]["schema"]
    jsonschema.validate(content["application/json"]["example"], schema)
    example = running.client.post("/predict", json=content["application/json"]["example"])
    assert example.status_code == 200, example.text
    good = {"instances": [{"image": base64.b64encode(png(0)).decode()}], "top_k": 1}
    jsonschema.validate(good, schema)
    assert running.client.post("/predict", json=good).status_code == 200
    bodies: tuple[dict[str, Any], ...] = (
        {"instances": []},
        {"instances": [{"imag": ""}]},
        {"instances": good["instances"], "x": 1},
    )
    for bad in bodies:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
        assert running.client.post("/predict", json=bad).status_code == 422


def test_every_code_that_can_be_raised_is_documented_and_in_the_table(document: dict[str, Any]) -> None:
    responses = document["paths"]["/predict"]["post"]["responses"]
    for failure in ServingError.__subclasses__():
        status = STATUS_BY_CODE[failure.code]
        # The last two are of administration and of feedback.
        if failure.code not in ("not_found", "method_not_allowed", "refused", "storage_full"):
            assert failure.code in responses[str(status)]["description"]


def test_failures_are_documented_as_problems_only_and_answers_with_their_headers(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                assert "X-Request-ID" in response["headers"]
                content = response.get("content", {})
                assert not ("application/problem+json" in content and "application/json" in content)
                if status == "503" and "application/problem+json" in content:
                    assert "Retry-After" in response["headers"]
    assert "HTTPValidationError" not in str(document)
    assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]


def test_the_timeout_header_is_documented(document: dict[str, Any]) -> None:
    names = {parameter["name"] for parameter in document["paths"]["/predict"]["post"]["parameters"]}
    assert {"X-Request-Timeout-Ms", "model", "top_k"} <= names


def test_the_documentation_page_is_there(running: Running) -> None:
    response = running.client.get("/docs")
    assert response.status_code == 200
    assert "swagger" in response.text.lower()


def test_a_body_that_comes_packed_in_a_way_that_is_not_taken_is_documented(
    shades: Repository, serve: Callable[..., Running], tmp_path: Path
) -> None:
    key = new_key()
    (tmp_path / "admin-keys").write_text(line_of("operator", key))
    client = (
        serve(admin_keys_file=tmp_path / "admin-keys", feedback_file=tmp_path / "feedback").until_ready().client
    )
    document = client.get("/openapi.json").json()
    headers = {"X-API-Key": key, "Content-Encoding": "br"}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                url = path.format(name="shades", version="20200101.1")
                response = client.request(method, url, content=b"{}", headers=headers)
                assert response.status_code in (400, 415)
                check(document, path, method, response)


def test_metrics_that_cannot_be_had_are_documented(document: dict[str, Any]) -> None:
    # The worker processes' come by way of one that may not answer.
    described = document["paths"]["/metrics"]["get"]["responses"]
    assert list(described["503"]["content"]) == ["application/problem+json"]
