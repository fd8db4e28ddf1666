"""What this service adds to the Open Inference Protocol's letter: encoded inputs, labels, limits and deadlines."""

import base64
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.api_keys import line_of, new_key
from app.inference import LoadedModel
from app.service import Service
from models.bundle import Bundle
from models.repository import Repository
from models.tokenization import Tokenizer
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import LABELS, publish, publish_texts, publish_writer, tokenizer_json
from tests.images import encoded as encode_image
from tests.images import png
from tests.open_inference.target import LENGTH_HEADER, Target, outputs
from tests.servers import Running, until

Serve = Callable[..., Running]


def target(running: Running, model: str = "shades") -> Target:
    return Target(running.client, model)


@pytest.fixture
def shades_target(shades: Repository, serve: Serve) -> Target:
    return target(serve().until_ready())


@pytest.fixture
def moods_target(repository: Repository, serve: Serve) -> Target:
    publish_texts(repository, "moods")
    return target(serve().until_ready(), "moods")


@pytest.fixture
def echo_target(repository: Repository, serve: Serve) -> Target:
    publish_writer(repository, "echo")
    return target(serve().until_ready(), "echo")


def elements(contents: Sequence[bytes]) -> bytes:
    return b"".join(len(content).to_bytes(4, "little") + content for content in contents)


def encoded(name: str, contents: Sequence[bytes], shape: list[int] | None = None) -> dict[str, Any]:
    parameters = {"binary_data_size": len(elements(contents))}
    return {"name": name, "datatype": "BYTES", "shape": shape or [len(contents)], "parameters": parameters}


def error(response: Any, status: int) -> str:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    assert list(response.json()) == ["error"]
    message: str = response.json()["error"]
    return message


def test_metadata_is_that_of_the_bundle(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades")
    publish_texts(repository, "moods")
    publish_writer(repository, "echo")
    client = serve().until_ready().client
    shades, moods, echo = (client.get(f"/v2/models/{name}").json() for name in ("shades", "moods", "echo"))
    assert shades["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert shades["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]
    assert moods["inputs"] == [{"name": "tokens", "datatype": "INT64", "shape": [-1, -1]}]
    assert moods["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
    assert echo["outputs"] == [
        {"name": "written", "datatype": "INT64", "shape": [-1, -1, -1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "texts", "datatype": "BYTES", "shape": [-1, -1]},
    ]
    assert shades["platform"] == "pytorch_torchscript"
    assert shades["versions"] == [client.get("/models/shades").json()["version"]]


def test_images_come_encoded_and_are_answered_as_by_predict(shades_target: Target) -> None:
    pictures = [png(250), png(0), png(120, (31, 5))]
    predicted = [
        shades_target.client.post("/predict?top_k=3", content=content, headers={"Content-Type": "image/png"})
        for content in pictures
    ]
    wanted = [
        [score for _, score in sorted((LABELS.index(each["label"]), each["score"]) for each in reply["top"])]
        for reply in (response.json()["predictions"][0] for response in predicted)
    ]
    for shape in ([3], [3, 1]):
        request = {"inputs": [encoded("images", pictures, shape)]}
        found = outputs(shades_target.infer_binary(request, elements(pictures)))["scores"]
        assert np.allclose(found, wanted, atol=1e-6)
    texts = [base64.b64encode(content).decode() for content in pictures]
    in_json = {"name": "images", "datatype": "BYTES", "shape": [3], "data": texts}
    assert np.allclose(outputs(shades_target.infer({"inputs": [in_json]}))["scores"], wanted, atol=1e-6)


def test_a_body_that_is_one_image_file_is_a_request(shades_target: Target) -> None:
    url = "/v2/models/shades/infer"
    response = shades_target.client.post(url, content=png(250, (40, 30)), headers={LENGTH_HEADER: "0"})
    assert outputs(response)["scores"][0].argmax() == LABELS.index("light")
    cut = shades_target.client.post(url, content=png(250, (40, 30))[:50], headers={LENGTH_HEADER: "0"})
    error(cut, 400)


def test_an_image_file_of_as_many_bytes_as_the_tensor_is_no_tensor(shades_target: Target) -> None:
    url = "/v2/models/shades/infer"
    size = math.prod(shades_target.metadata["inputs"][0]["shape"][1:])
    picture = encode_image(Image.new("L", (2, 2), 250), "GIF")
    assert len(picture) < size
    response = shades_target.client.post(url, content=picture.ljust(size, b"\0"), headers={LENGTH_HEADER: "0"})
    assert outputs(response)["scores"][0].argmax() == LABELS.index("light")
    pixels = shades_target.client.post(url, content=bytes(size), headers={LENGTH_HEADER: "0"})
    assert outputs(pixels)["scores"][0].argmax() == LABELS.index("dark")


def test_json_of_as_many_bytes_as_the_tensor_is_json(shades_target: Target) -> None:
    url, size = "/v2/models/shades/infer", math.prod(shades_target.metadata["inputs"][0]["shape"][1:])
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        headers = {LENGTH_HEADER: "0", "Content-Type": kind}
        wrong = shades_target.client.post(url, content=b'{"inputs": 5}'.ljust(size), headers=headers)
        assert "inputs" in error(wrong, 400)
        request = json.dumps(shades_target.request()).encode()
        assert outputs(shades_target.client.post(url, content=request, headers=headers))["scores"].shape == (1, 3)


def test_a_bad_image_among_others_is_named(shades_target: Target) -> None:
    contents = [png(0), b"no image", png(0)]
    request = {"inputs": [encoded("images", contents)]}
    assert "item 1: " in error(shades_target.infer_binary(request, elements(contents)), 400)
    assert error(shades_target.infer_binary({"inputs": [encoded("images", [b"x"])]}, elements([b"x"])), 400)


@pytest.mark.parametrize(
    "binary",
    [b"\5\0\0\0abc", b"\0\0", b"\xff\xff\xff\xffabc", elements([b"a", b"b"]), b""],
    ids=["cut", "no length", "huge length", "two", "none"],
)
def test_bytes_that_are_not_as_many_as_they_say_are_refused(shades_target: Target, binary: bytes) -> None:
    tensor = encoded("images", []) | {"shape": [1], "parameters": {"binary_data_size": len(binary)}}
    error(shades_target.infer_binary({"inputs": [tensor]}, binary), 400)


def test_labels_are_told_by_the_classification_extension(shades_target: Target) -> None:
    for binary in (False, True):
        parameters = {"classification": 2, "binary_data": binary}
        request = shades_target.request(2, outputs=[{"name": "scores", "parameters": parameters}])
        found = outputs(shades_target.infer(request))["scores"]
        assert found.shape == (2, 2)
        score, index, label = found[0, 0].split(":")
        assert (float(score) > 0.9, index, label) == (True, "0", "dark")
    everything = shades_target.request(outputs=[{"name": "scores", "parameters": {"classification": 99}}])
    assert outputs(shades_target.infer(everything))["scores"].shape == (1, 3)


@pytest.mark.parametrize("count", [-1, 1.5, "2", True, [1], False, "", [], {}, 0.0])
def test_a_number_of_labels_that_is_none_is_refused(shades_target: Target, count: object) -> None:
    asked = [{"name": "scores", "parameters": {"classification": count}}]
    assert "classification" in error(shades_target.infer(shades_target.request(outputs=asked)), 400)


@pytest.mark.parametrize("where", ["binary_data", "binary_data_output"])
def test_a_flag_that_is_none_is_refused(shades_target: Target, where: str) -> None:
    asked = [{"name": "scores", "parameters": {where: "yes"}}]
    request = {"outputs": asked} if where == "binary_data" else {"parameters": {where: 1}}
    assert where in error(shades_target.infer(shades_target.request(**request)), 400)


def test_texts_come_as_they_are_and_as_tokens(moods_target: Target) -> None:
    texts = ["a good film", "bad", "fine"]
    in_json = {"name": "tokens", "datatype": "BYTES", "shape": [3], "data": texts}
    found = outputs(moods_target.infer({"inputs": [in_json]}))["scores"]
    contents = [text.encode() for text in texts]
    binary = moods_target.infer_binary({"inputs": [encoded("tokens", contents)]}, elements(contents))
    assert np.allclose(outputs(binary)["scores"], found)
    for text, scores in zip(texts, found, strict=True):
        predicted = moods_target.client.post("/predict", content=text, headers={"Content-Type": "text/plain"})
        assert predicted.json()["predictions"][0]["score"] == pytest.approx(scores.max(), abs=1e-6)
    rows = Tokenizer(tokenizer_json()).encode_all(texts)
    padded = np.array([row + [0] * (8 - len(row)) for row in rows])
    by_tokens = outputs(moods_target.infer({"inputs": [moods_target.tensor(padded)]}))["scores"]
    assert np.allclose(by_tokens, found)


@pytest.mark.parametrize(
    ("row", "said"),
    [([1, 99, 2], "token id"), ([1, -4, 2], "token id"), ([1, 0, 2], "token id"), ([0, 0, 0], "no tokens")],
)
def test_tokens_that_the_model_does_not_have_are_refused(moods_target: Target, row: list[int], said: str) -> None:
    assert said in error(moods_target.infer({"inputs": [moods_target.tensor(np.array([row]))]}), 400)


def test_texts_that_cannot_be_taken_are_refused(moods_target: Target) -> None:
    broken = {"inputs": [encoded("tokens", [b"\xff\xfe"])]}
    assert "UTF-8" in error(moods_target.infer_binary(broken, elements([b"\xff\xfe"])), 400)
    long = {"name": "tokens", "datatype": "BYTES", "shape": [1], "data": ["good " * 20]}
    assert "at most 8" in error(moods_target.infer({"inputs": [long]}), 413)
    assert "at most 8" in error(moods_target.infer({"inputs": [moods_target.tensor(np.ones((1, 9), int))]}), 413)
    raw = moods_target.client.post("/v2/models/moods/infer", content=b"good film", headers={LENGTH_HEADER: "0"})
    assert "9 bytes" in error(raw, 400)


def test_what_is_written_comes_as_texts_too(echo_target: Target) -> None:
    texts = ["good", "a good film"]
    in_json = {"name": "tokens", "datatype": "BYTES", "shape": [2], "data": texts}
    found = outputs(echo_target.infer({"inputs": [in_json]}))
    assert found["texts"].tolist() == [["good", "good"], ["a good film", "a"]]
    assert found["scores"].shape == (2, 2)
    assert found["written"].shape[:2] == (2, 2)
    labels = echo_target.request(outputs=[{"name": "scores", "parameters": {"classification": 1}}])
    assert "classification" in error(echo_target.infer(labels), 400)


def test_limits_have_their_own_status(shades: Repository, serve: Serve) -> None:
    asked = target(serve(max_items=2, max_body_bytes=20_000, max_image_pixels=99).until_ready())
    assert "at most 2" in error(asked.infer(asked.request(3)), 413)
    assert "over 20000 bytes" in error(asked.infer_text(b" " * 20_001), 413)
    big = png(0, (10, 10))
    assert "at most 99" in error(asked.infer_binary({"inputs": [encoded("images", [big])]}, elements([big])), 413)
    assert "no model" in error(asked.client.post("/v2/models/other/infer", json=asked.request()), 404)
    assert "not live" in error(asked.infer(asked.request(), "/versions/20200101.1"), 404)
    assert "no route" in error(asked.client.get("/v2/nothing"), 404)


def test_more_json_than_can_be_held_is_refused_before_it_is_read(shades: Repository, serve: Serve) -> None:
    asked = target(serve().until_ready())
    assert "binary data" in error(asked.infer_text(b"[" + b"1," * 2_000_001 + b"1]"), 413)
    little = target(serve(max_body_bytes=100_000, max_buffered_bytes=100_000).until_ready())
    assert "memory" in error(little.infer_text(b"[" + b"1," * 20_000 + b"1]"), 413)
    # One character of four bytes, and each of the others takes as many.
    wide = json.dumps({"id": "x" * 30_000 + "\N{GRINNING FACE}"}, ensure_ascii=False)
    assert "memory" in error(little.infer_text(wide.encode()), 413)
    assert "memory" not in error(little.infer_text(json.dumps({"id": "x" * 30_000}).encode()), 400)


def test_a_list_of_nothing_but_faults_is_given_up_at_the_first(shades_target: Target) -> None:
    faults = b"[" + b"0," * 100_000 + b"0]"
    message = error(shades_target.infer_text(b'{"inputs": ' + faults + b"}"), 400)
    assert message.startswith("inputs")
    assert len(message) < 200


@pytest.mark.parametrize("timeout_us", [2**63, 10**400, -1, 1.5, "1", True, [], {}])
def test_a_timeout_that_is_none_is_named(shades_target: Target, timeout_us: object) -> None:
    response = shades_target.infer(shades_target.request(parameters={"timeout": timeout_us}))
    assert "parameters.timeout" in error(response, 400)


def test_a_timeout_of_null_is_none(shades_target: Target) -> None:
    assert shades_target.infer(shades_target.request(parameters={"timeout": None})).status_code == 200


def test_an_id_is_not_as_long_as_one_likes(shades_target: Target) -> None:
    assert shades_target.infer(shades_target.request(id="x" * 4_096)).json()["id"] == "x" * 4_096
    assert "id" in error(shades_target.infer(shades_target.request(id="x" * 4_097)), 400)


def test_a_deadline_that_passes_while_a_model_runs_is_told(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    executor = running.service.registry.live["shades"].batcher._executor
    gate, real_infer = threading.Event(), executor._infer

    def held(*asked: Any) -> Any:
        assert gate.wait(20)
        return real_infer(*asked)

    executor._infer = held
    asked = target(running)
    response = asked.infer(asked.request(parameters={"timeout": 300_000}))
    gate.set()
    assert "time ran out" in error(response, 504)


def test_a_full_queue_refuses_with_when_to_come_back(shades: Repository, serve: Serve) -> None:
    running = serve(queue_capacity=1, max_items=1).until_ready()
    executor = running.service.registry.live["shades"].batcher._executor
    gate, entered, real_infer = threading.Event(), threading.Event(), executor._infer

    def held(*asked: Any) -> Any:
        entered.set()
        assert gate.wait(20)
        return real_infer(*asked)

    executor._infer = held
    asked = target(running)
    first = threading.Thread(target=asked.infer, args=(asked.request(),))
    first.start()
    assert entered.wait(20)
    refused = asked.infer(asked.request())
    gate.set()
    first.join()
    assert "1 of 1 places" in error(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1


def test_a_service_that_leaves_says_so(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    running.service.registry.live["shades"].batcher._loop.call_soon_threadsafe(running.service.refuse)
    until(lambda: running.client.get("/v2/health/ready").status_code == 503)
    asked = target(running)
    assert "about to stop" in error(asked.client.get("/v2/health/ready"), 503)
    assert "about to stop" in error(asked.client.get("/v2/models/shades/ready"), 503)
    assert "about to stop" in error(asked.infer(asked.request()), 503)
    assert asked.client.get("/v2/health/live").json() == {"live": True}


def test_a_model_that_is_being_loaded_says_when_to_come_back(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, begin = Service._load, threading.Event()

    def load_later(service: Service, bundle: Bundle) -> LoadedModel:
        begin.wait()
        return load(service, bundle)

    monkeypatch.setattr(Service, "_load", load_later)
    running = serve()
    until(lambda: "shades" in running.service.registry.names)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": [0] * 64}
    try:
        for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            body = {"inputs": [tensor]} if method == "POST" else None
            response = running.client.request(method, f"/v2/models/shades{path}", json=body)
            assert "is being loaded" in error(response, 503)
            assert int(response.headers["retry-after"]) > 0
    finally:
        begin.set()
    asked = target(running.until_ready())
    assert asked.infer({"inputs": [tensor]}).status_code == 200


def test_another_method_says_which_there_are(shades_target: Target) -> None:
    for method, what, allowed in (("GET", "/infer", {"POST"}), ("POST", "/ready", {"GET"})):
        response = shades_target.client.request(method, f"/v2/models/shades{what}")
        assert error(response, 405)
        assert set(response.headers["allow"].split(", ")) >= allowed


def test_a_model_that_gives_no_probabilities_fails_its_request(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = target(serve().until_ready())
    monkeypatch.setattr(TorchScriptGraph, "__call__", lambda *_, **__: torch.full((1, 3), torch.nan))
    assert "no probabilities" in error(asked.infer(asked.request()), 500)


def test_keys_and_rates_are_kept_and_health_is_open(shades: Repository, serve: Serve, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(line_of("mobile", key) + "\n")
    client = serve(api_keys_file=tmp_path / "keys", rate_limit_per_s=0.001, rate_limit_burst=1).client
    until(lambda: client.get("/v2/health/ready").status_code == 200)
    assert client.get("/v2/health/live").status_code == 200
    assert "API key" in error(client.get("/v2"), 401)
    assert client.get("/v2", headers={"X-API-Key": key}).status_code == 200
    assert "too many" in error(client.get("/v2", headers={"X-API-Key": key}), 429)


def test_a_bug_of_ours_is_told_in_the_protocols_words(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve().until_ready()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(running.service.registry, "resolve", broken)
    asked = target(running)
    assert "log says why" in error(asked.client.post("/v2/models/shades/infer", json={"inputs": []}), 500)


def test_requests_are_counted_by_their_route_and_model(shades_target: Target) -> None:
    assert shades_target.infer(shades_target.request()).status_code == 200
    error(shades_target.infer_text(b"{"), 400)
    told = shades_target.client.get("/metrics").text
    route = 'route="/v2/models/{name}/infer"'
    version = shades_target.metadata["versions"][0]
    assert f'lantern_requests_total{{code="ok",model="shades",{route},version="{version}"}} 1.0' in told
    assert f'lantern_requests_total{{code="invalid_request",model="",{route},version=""}} 1.0' in told
