"""POST /predict over real HTTP, against a model whose answers are known."""

import base64
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from app.schemas import PredictReply, Problem
from models.repository import Repository
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import Always, decoding, publish
from tests.images import encoded, png
from tests.servers import Running, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def running(shades: Repository, serve: Serve) -> Running:
    return serve().until_ready()


def reply(response: httpx.Response) -> PredictReply:
    assert response.status_code == 200, response.text
    return PredictReply.model_validate_json(response.content)


def labels(response: httpx.Response) -> list[str]:
    return [getattr(prediction, "label", "error") for prediction in reply(response).predictions]


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    found = Problem.model_validate_json(response.content)
    assert (found.status, found.code) == (status, code)
    assert found.request_id == response.headers["x-request-id"]
    return found


def test_a_raw_image_gets_its_label_and_scores(running: Running) -> None:
    response = running.client.post("/predict", content=png(250), headers=PNG)
    answer = reply(response)
    prediction = response.json()["predictions"][0]
    assert answer.model == "shades"
    assert prediction["label"] == "light"
    assert [label["label"] for label in prediction["top"]] == ["light", "grey", "dark"]
    assert sum(label["score"] for label in prediction["top"]) == pytest.approx(1, abs=1e-5)
    assert prediction["score"] == prediction["top"][0]["score"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_image_format_is_answered(running: Running, format_: str) -> None:
    content = encoded(Image.new("RGB", (40, 30), (5, 5, 5)), format_)
    response = running.client.post(
        "/predict", content=content, headers={"Content-Type": f"image/{format_.lower()}"}
    )
    assert labels(response) == ["dark"]


def test_a_large_image_is_handed_to_no_thread_but_the_decoder(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    running.service.pool.shutdown()
    body = png(0) + bytes(1_000_000)
    answer = running.client.post("/predict", content=body, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text


def test_the_timing_says_where_the_time_went(running: Running) -> None:
    timing = reply(running.client.post("/predict", content=png(0), headers=PNG)).timing_ms
    assert timing.decode > 0
    assert timing.inference > 0
    assert timing.total >= timing.decode + timing.inference


def test_a_form_of_several_files_is_answered_in_order(running: Running) -> None:
    files = [("file", (f"{grey}.png", png(grey), "image/png")) for grey in (250, 0, 128)]
    assert labels(running.client.post("/predict", files=files)) == ["light", "dark", "grey"]


def test_json_instances_are_answered_in_order(running: Running) -> None:
    instances = [{"image": base64.b64encode(png(grey)).decode()} for grey in (0, 250)]
    response = running.client.post("/predict", json={"instances": instances, "top_k": 1})
    assert labels(response) == ["dark", "light"]
    assert len(response.json()["predictions"][0]["top"]) == 1


def test_a_chunked_body_is_answered(running: Running) -> None:
    content = png(250)
    chunks = (content[at : at + 10] for at in range(0, len(content), 10))
    assert labels(running.client.post("/predict", content=chunks, headers=PNG)) == ["light"]


def test_a_text_is_refused_while_no_model_takes_texts(running: Running) -> None:
    response = running.client.post("/predict", content="good", headers={"Content-Type": "text/plain"})
    assert "no live model takes texts" in problem(response, 422, "invalid_request").detail


def test_a_text_for_an_image_model_is_refused(running: Running) -> None:
    response = running.client.post("/models/shades/predict", json={"instances": [{"text": "good"}]})
    assert problem(response, 422, "invalid_request").detail == "shades takes images, not texts"


def test_mixed_kinds_without_a_model_are_refused(running: Running) -> None:
    instances = [{"text": "good"}, {"image": base64.b64encode(png(0)).decode()}]
    response = running.client.post("/predict", json={"instances": instances})
    assert "mixed" in problem(response, 422, "invalid_request").detail


@pytest.mark.parametrize("top_k", [1, 2, 3, 99])
def test_top_k_is_as_asked_or_all_there_are(running: Running, top_k: int) -> None:
    response = running.client.post("/predict", params={"top_k": top_k}, content=png(0), headers=PNG)
    assert len(response.json()["predictions"][0]["top"]) == min(top_k, 3)


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", ""])
def test_a_top_k_that_is_off_is_named(running: Running, top_k: str) -> None:
    response = running.client.post("/predict", params={"top_k": top_k}, content=png(0), headers=PNG)
    assert "top_k" in problem(response, 422, "invalid_request").detail


def test_a_model_and_a_version_can_be_addressed(running: Running) -> None:
    version = running.client.get("/models/shades").json()["version"]
    for path in ("/predict?model=shades", "/models/shades/predict", f"/models/shades/versions/{version}/predict"):
        assert labels(running.client.post(path, content=png(250), headers=PNG)) == ["light"]


@pytest.mark.parametrize(
    "path", ["/predict?model=other", "/models/other/predict", "/models/other/versions/1/predict"]
)
def test_an_unknown_model_is_not_found_with_the_known_ones(running: Running, path: str) -> None:
    response = running.client.post(path, content=png(0), headers=PNG)
    assert "shades" in problem(response, 404, "model_not_found").detail


def test_a_version_that_is_not_live_is_not_found(running: Running) -> None:
    response = running.client.post("/models/shades/versions/20000101.1/predict", content=png(0), headers=PNG)
    assert "is not live" in problem(response, 404, "version_not_found").detail


def test_the_url_and_the_body_must_not_contradict_each_other(running: Running) -> None:
    body = {"instances": [{"image": base64.b64encode(png(0)).decode()}], "model": "shades"}
    assert labels(running.client.post("/models/shades/predict", json=body)) == ["dark"]
    response = running.client.post("/models/other/predict", json=body)
    assert "say one" in problem(response, 422, "invalid_request").detail


def test_a_bad_item_fails_alone_in_its_place(running: Running) -> None:
    files = [("file", png(250)), ("file", b"no image"), ("file", png(0))]
    response = running.client.post("/predict", files=files)
    assert labels(response) == ["light", "error", "dark"]
    assert response.json()["predictions"][1]["error"]["code"] == "undecodable_image"


def test_bad_base64_fails_alone_in_its_place(running: Running) -> None:
    instances = [{"image": "!!"}, {"image": base64.b64encode(png(0)).decode()}]
    response = running.client.post("/predict", json={"instances": instances})
    assert labels(response) == ["error", "dark"]
    assert response.json()["predictions"][0]["error"]["code"] == "invalid_request"


def test_a_lone_bad_item_gets_the_errors_own_status(running: Running) -> None:
    response = running.client.post("/predict", content=b"no image", headers=PNG)
    assert "not a JPEG" in problem(response, 400, "undecodable_image").detail


def test_items_that_are_all_bad_get_the_errors_own_status_and_each_its_reason(running: Running) -> None:
    files = [("file", b""), ("file", b"no image")]
    found = problem(running.client.post("/predict", files=files), 400, "undecodable_image")
    assert found.errors is not None
    assert [error.code for error in found.errors] == ["undecodable_image"] * 2


def test_instances_that_are_all_bad_never_reach_the_model(running: Running) -> None:
    response = running.client.post("/predict", json={"instances": [{"imag": ""}]})
    assert "instances.0" in problem(response, 422, "invalid_request").detail


def test_an_unsupported_type_says_what_is_taken(running: Running) -> None:
    response = running.client.post("/predict", content=png(0), headers={"Content-Type": "application/pdf"})
    assert "image/png" in problem(response, 415, "unsupported_media_type").detail


def test_an_unknown_route_and_method_are_problems_too(running: Running) -> None:
    problem(running.client.get("/nowhere"), 404, "not_found")
    refused = running.client.get("/predict")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"


def test_too_many_items_are_refused(shades: Repository, serve: Serve) -> None:
    client = serve(max_items=2).until_ready().client
    response = client.post("/predict", files=[("file", png(0))] * 3)
    assert "at most 2" in problem(response, 413, "too_many_items").detail


def test_an_image_with_too_many_pixels_is_refused(shades: Repository, serve: Serve) -> None:
    client = serve(max_image_pixels=99).until_ready().client
    response = client.post("/predict", content=png(0, (10, 10)), headers=PNG)
    assert "at most 99" in problem(response, 413, "image_too_large").detail


def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(shades: Repository, serve: Serve) -> None:
    port = serve(max_body_bytes=1024).until_ready().port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1025\r\n\r\n"
        connection.sendall(head.encode())
        assert b"413" in connection.recv(65536).split(b"\r\n")[0]


def test_a_length_may_have_any_number_of_zeros_before_it(running: Running) -> None:
    body = png(0)
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nConnection: close\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
        connection.sendall(f"{head}{'0' * 5_000}{len(body)}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_chunked_body_over_the_limit_is_refused(shades: Repository, serve: Serve) -> None:
    client = serve(max_body_bytes=1024).until_ready().client
    response = client.post("/predict", content=(b"x" * 100 for _ in range(20)), headers=PNG)
    assert "over 1024 bytes" in problem(response, 413, "body_too_large").detail
    assert labels(client.post("/predict", content=png(250), headers=PNG)) == ["light"]


def test_bodies_that_together_take_too_much_memory_are_refused_and_give_it_back(
    shades: Repository, serve: Serve
) -> None:
    running = serve(max_body_bytes=2000, max_buffered_bytes=3000).until_ready()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as slow:
        slow.sendall(head + b"x" * 1999)
        until(lambda: running.service.budget.held_bytes == 1999)
        refused = running.client.post("/predict", content=b"x" * 1500, headers=PNG)
        assert "held already" in problem(refused, 503, "overloaded").detail
        assert labels(running.client.post("/predict", content=png(250), headers=PNG)) == ["light"]
    until(lambda: running.service.budget.held_bytes == 0)


@pytest.mark.parametrize("asked", ["0", "-5", "soon", "nan", "", "inf", "1_000"])
def test_a_timeout_that_is_off_is_named(running: Running, asked: str) -> None:
    headers = PNG | {"X-Request-Timeout-Ms": asked}
    response = running.client.post("/predict", content=png(0), headers=headers)
    assert "X-Request-Timeout-Ms" in problem(response, 422, "invalid_request").detail


@pytest.mark.parametrize("asked", ["0.001", "5e-324"])
def test_a_client_may_ask_for_less_time_and_an_impossible_deadline_is_not_met(
    running: Running, asked: str
) -> None:
    response = running.client.post("/predict", content=png(0), headers=PNG | {"X-Request-Timeout-Ms": asked})
    assert response.status_code in (503, 504)
    assert response.json()["code"] in ("overloaded", "deadline_exceeded")


def test_a_body_that_never_comes_ends_at_the_deadline(shades: Repository, serve: Serve) -> None:
    port = serve(request_timeout_s=0.2).until_ready().port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc"
        connection.sendall(head.encode())
        assert b"504" in connection.recv(65536).split(b"\r\n")[0]


def test_several_models_and_no_default_ask_for_a_choice(shades: Repository, serve: Serve) -> None:
    publish(shades, "always", Always(0))
    running = serve().until_ready()
    response = running.client.post("/predict", content=png(0), headers=PNG)
    assert "always, shades" in problem(response, 422, "invalid_request").detail


def test_the_repositorys_default_is_taken(shades: Repository, serve: Serve) -> None:
    publish(shades, "always", Always(1))
    shades.set_default("image", "always")
    assert labels(serve().until_ready().client.post("/predict", content=png(0), headers=PNG)) == ["grey"]


def test_the_settings_default_wins(shades: Repository, serve: Serve) -> None:
    publish(shades, "always", Always(1))
    shades.set_default("image", "always")
    client = serve(default_image_model="shades").until_ready().client
    assert labels(client.post("/predict", content=png(0), headers=PNG)) == ["dark"]


def test_without_any_model_the_answer_says_how_to_get_one(serve: Serve) -> None:
    running = serve()
    until(lambda: running.service.registry.looked)
    response = running.client.post("/predict", content=png(0), headers=PNG)
    assert "python -m training" in problem(response, 503, "model_not_ready").detail
    assert int(response.headers["retry-after"]) >= 1


def test_a_colour_model_of_another_size_is_served_as_its_bundle_says(repository: Repository, serve: Serve) -> None:
    publish(repository, "colours", decode=decoding(color="RGB", size=(13, 7)))
    client = serve().until_ready().client
    assert labels(client.post("/predict", content=png(250, (50, 20)), headers=PNG)) == ["light"]


# What is larger than the server reads ahead, it stops to read: it must see the end of the connection all the same.
@pytest.mark.parametrize("more", [b"", bytes(200_000)], ids=["small", "large"])
def test_a_client_that_goes_away_costs_no_compute(shades: Repository, serve: Serve, more: bytes) -> None:
    running = serve().until_ready()
    batcher = running.service.registry.live["shades"].batcher
    gate, entered = threading.Event(), threading.Event()
    real_infer = batcher._executor._infer
    sizes: list[int] = []

    def held(examples: Any, *how: Any) -> Any:
        sizes.append(len(examples))
        entered.set()
        assert gate.wait(20)
        return real_infer(examples, *how)

    batcher._executor._infer = held
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s"
    body = png(0) + more
    first = threading.Thread(
        target=running.client.post, args=("/predict",), kwargs={"content": body, "headers": PNG}
    )
    first.start()
    assert entered.wait(20)
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as leaver:
        head, _, rest = (request % (len(body), body)).partition(b"\r\n\r\n")
        leaver.sendall(head + b"\r\n\r\n")
        until(lambda: running.service.metrics.requests_in_flight == 2)
        leaver.sendall(rest)
        until(lambda: batcher.open_tickets == 2)
    until(lambda: batcher.open_tickets == 1)
    gate.set()
    first.join()
    until(lambda: batcher.open_tickets == 0)
    assert sizes == [1]
    assert 'code="client_disconnected"' in running.client.get("/metrics").text


def test_an_overloaded_queue_refuses_at_once_with_when_to_come_back(shades: Repository, serve: Serve) -> None:
    running = serve(queue_capacity=1, max_items=1).until_ready()
    batcher = running.service.registry.live["shades"].batcher
    gate, entered = threading.Event(), threading.Event()
    real_infer = batcher._executor._infer

    def held(examples: Any, *how: Any) -> Any:
        entered.set()
        assert gate.wait(20)
        return real_infer(examples, *how)

    batcher._executor._infer = held
    post = {"content": png(0), "headers": PNG}
    first = threading.Thread(target=running.client.post, args=("/predict",), kwargs=post)
    first.start()
    assert entered.wait(20)
    refused = httpx.post(f"http://127.0.0.1:{running.port}/predict", content=png(0), headers=PNG)
    gate.set()
    first.join()
    assert "1 of 1 places" in problem(refused, 503, "overloaded").detail
    assert int(refused.headers["retry-after"]) >= 1


def test_an_answer_that_takes_too_long_is_a_504_at_the_deadline(shades: Repository, serve: Serve) -> None:
    running = serve(request_timeout_s=0.3).until_ready()
    batcher = running.service.registry.live["shades"].batcher
    gate = threading.Event()
    real_infer = batcher._executor._infer

    def held(examples: Any, *how: Any) -> Any:
        assert gate.wait(20)
        return real_infer(examples, *how)

    batcher._executor._infer = held
    response = running.client.post("/predict", content=png(0), headers=PNG)
    gate.set()
    problem(response, 504, "deadline_exceeded")
    assert response.elapsed.total_seconds() >= 0.25


def test_a_model_that_fails_is_a_500_that_leaks_nothing(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()

    def broken(*_: Any) -> Any:
        raise RuntimeError("secret /etc/path")

    running.service.registry.live["shades"].batcher._executor._infer = broken
    response = running.client.post("/predict", content=png(0), headers=PNG)
    assert "secret" not in problem(response, 500, "inference_failed").detail


@pytest.mark.parametrize("value", [float("nan"), -0.5, 1.5])
def test_scores_that_are_no_probabilities_are_never_answered(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    running = serve().until_ready()
    monkeypatch.setattr(TorchScriptGraph, "__call__", lambda *_, **__: torch.full((1, 3), value))
    problem(running.client.post("/predict", content=png(0), headers=PNG), 500, "inference_failed")


def test_a_fault_of_ours_is_a_500_that_leaks_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret /etc/path")

    monkeypatch.setattr(running.service.predictor, "predict", broken)
    response = running.client.post("/predict", content=png(0), headers=PNG)
    assert "secret" not in problem(response, 500, "internal_error").detail


@pytest.mark.parametrize("path", ["/models/shades", "/v2/models/shades"])
def test_a_fault_of_ours_is_told_alike_on_routes_that_the_framework_calls(
    running: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret /etc/path")

    monkeypatch.setattr(running.service.repository, "versions", broken)
    monkeypatch.setattr(running.service.registry, "resolve", broken)
    response = running.client.get(path, headers={"X-Request-ID": "known"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "known")
    body = response.json()
    assert "its log says why" in (
        body["error"] if path.startswith("/v2") else problem(response, 500, "internal_error").detail
    )
    assert 'code="internal_error"' in running.client.get("/metrics").text


def test_many_at_once_each_get_their_own_answer(running: Running) -> None:
    wanted = {0: "dark", 128: "grey", 250: "light"}
    failures: list[str] = []

    def ask(grey: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=60) as client:
            for _ in range(10):
                found = labels(client.post("/predict", content=png(grey), headers=PNG))
                if found != [wanted[grey]]:
                    failures.append(f"{grey}: {found}")

    threads = [threading.Thread(target=ask, args=(grey,)) for grey in [0, 128, 250] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_text_over_the_limit_is_refused_and_says_the_limit(shades: Repository, serve: Serve) -> None:
    client = serve(max_text_chars=5).until_ready().client
    response = client.post("/predict", content="é" * 6, headers={"Content-Type": "text/plain"})
    assert "at most 5" in problem(response, 413, "text_too_long").detail
    problem(client.post("/predict", json={"instances": [{"text": "é" * 6}]}), 413, "text_too_long")
