"""The protocol's paths, versioned and not; what they say, and what they refuse."""

from typing import Any

import httpx
import pytest

from tests.open_inference.target import DTYPES, Target, outputs, same


def get(target: Target, path: str) -> dict[str, Any]:
    response = target.client.get(path)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def version(target: Target) -> str:
    return f"/versions/{target.metadata['versions'][-1]}"


def test_the_server_says_what_it_is(target: Target) -> None:
    found = get(target, "/v2")
    assert isinstance(found["name"], str)
    assert isinstance(found["version"], str)
    assert all(isinstance(extension, str) for extension in found["extensions"])


@pytest.mark.parametrize("probe", ["live", "ready"])
def test_it_is_live_and_ready(target: Target, probe: str) -> None:
    assert target.client.get(f"/v2/health/{probe}").status_code == 200


def test_a_model_says_what_it_takes_and_gives(target: Target) -> None:
    found = get(target, f"/v2/models/{target.model}")
    assert found["name"] == target.model
    assert found["platform"]
    assert all(isinstance(each, str) for each in found["versions"])
    for tensor in (*found["inputs"], *found["outputs"]):
        assert isinstance(tensor["name"], str)
        assert tensor["datatype"] in (*DTYPES, "FP16", "BYTES")
        assert all(size == -1 or size > 0 for size in tensor["shape"])


def test_a_version_says_the_same(target: Target) -> None:
    found = get(target, f"/v2/models/{target.model}{version(target)}")
    assert (found["inputs"], found["outputs"]) == (target.metadata["inputs"], target.metadata["outputs"])


def test_a_model_and_its_version_are_ready(target: Target) -> None:
    for address in (target.model, target.model + version(target)):
        assert target.client.get(f"/v2/models/{address}/ready").status_code == 200


def test_a_model_and_its_version_answer_alike(target: Target) -> None:
    plain, versioned = target.infer(target.request()), target.infer(target.request(), version(target))
    assert same(outputs(plain), outputs(versioned))
    for response in (plain, versioned):
        assert response.json()["model_name"] == target.model
        assert response.json()["model_version"] == version(target).rpartition("/")[2]


@pytest.mark.parametrize(
    "address", ["nobody-knows-it", "nobody-knows-it/versions/1", "%00", "a" * 10_000, "..%2f.."]
)
@pytest.mark.parametrize("what", ["", "/ready", "/infer"])
def test_an_unknown_model_is_refused(target: Target, address: str, what: str) -> None:
    path = f"/v2/models/{address}{what}"
    response = target.client.post(path, json=target.request()) if what == "/infer" else target.client.get(path)
    target.refused(response, 404)


@pytest.mark.parametrize("unknown", ["987654321", "no-number"])
@pytest.mark.parametrize("what", ["", "/ready", "/infer"])
def test_an_unknown_version_is_refused(target: Target, unknown: str, what: str) -> None:
    path = f"/v2/models/{target.model}/versions/{unknown}{what}"
    response = target.client.post(path, json=target.request()) if what == "/infer" else target.client.get(path)
    target.refused(response, 404)


def test_another_method_is_refused(target: Target) -> None:
    statuses = (405,) if target.own else (404, 405)
    wrong = [("GET", "/infer"), ("PUT", "/infer"), ("POST", "/ready"), ("DELETE", "")]
    for method, what in wrong:
        assert target.client.request(method, f"/v2/models/{target.model}{what}").status_code in statuses


def test_an_id_is_echoed(target: Target) -> None:
    for given in ("mine-1", "", 'a b\t"c"', "é漢字", "x" * 1_000):
        assert target.infer(target.request(id=given)).json().get("id", "") == given
    target.refused(target.infer(target.request(id=7)))


def test_unknown_parameters_do_no_harm(target: Target) -> None:
    parameters = {"mine": "x", "number": 1.5, "flag": True}
    tensor = target.tensor(target.values(), parameters=parameters)
    plain = outputs(target.infer(target.request()))
    assert same(outputs(target.infer({"inputs": [tensor], "parameters": parameters})), plain)


def test_a_timeout_that_is_over_ends_a_request_and_one_that_is_not_does_no_harm(target: Target) -> None:
    late = target.infer(target.request(parameters={"timeout": 1}))
    # The protocol names no parameters: another server may take no notice of it.
    assert late.status_code == 504 or not target.own
    assert late.status_code == 200 or target.error(late)
    plain = outputs(target.infer(target.request()))
    for timeout_us in (0, 60_000_000):
        assert same(outputs(target.infer(target.request(parameters={"timeout": timeout_us}))), plain)


def test_a_body_in_chunks_is_taken(target: Target) -> None:
    text = httpx.Request("POST", "http://any/", json=target.request()).content
    pieces = (text[at : at + 7] for at in range(0, len(text), 7))
    response = target.client.post(f"/v2/models/{target.model}/infer", content=pieces)
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert same(outputs(response), outputs(target.infer(target.request())))
