"""Texts over real HTTP: a model that sorts them and one that writes them, whose answers are known."""

import base64
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import jsonschema
import pytest
import torch
from torch import Tensor

from app.schemas import Metadata, ModelInfo, PredictReply, Problem, TextLimits
from models.manifest import Tokenization
from models.repository import Repository
from models.tokenization import Tokenizer
from models.torchscript_graph import TorchScriptGraph
from tests.bundles import Mood, publish, publish_texts, publish_writer, tokenizer_json
from tests.images import png
from tests.servers import Running, until
from training.architectures.recurrent import Recurrent
from training.architectures.seq2seq import Seq2Seq
from training.classifier import TextClassifier

Serve = Callable[..., Running]
TEXT = {"Content-Type": "text/plain"}
# A text's length in tokens, its beginning and end included, is what these answers depend on.
GOOD_FILM = torch.tensor([0.0, 8 / 4]).softmax(0)[1].item()


@pytest.fixture
def moods(repository: Repository) -> Repository:
    """A repository with one model, `moods`, that tells bad texts from good ones."""
    publish_texts(repository, "moods")
    return repository


@pytest.fixture
def echo(repository: Repository) -> Repository:
    """A repository with one model, `echo`, that writes what it reads."""
    publish_writer(repository, "echo")
    return repository


def reply(response: httpx.Response) -> PredictReply:
    assert response.status_code == 200, response.text
    return PredictReply.model_validate_json(response.content)


def predictions(response: httpx.Response) -> list[dict[str, Any]]:
    reply(response)
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    found = Problem.model_validate_json(response.content)
    assert (found.status, found.code) == (status, code)
    return found


def instances(*texts: str, **rest: object) -> dict[str, Any]:
    return {"instances": [{"text": text} for text in texts], **rest}


def test_a_plain_text_gets_its_label_and_scores(moods: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    response = client.post("/predict", content="Good film", headers=TEXT)
    assert reply(response).model == "moods"
    [prediction] = predictions(response)
    assert prediction["label"] == "good"
    assert prediction["score"] == pytest.approx(GOOD_FILM, abs=1e-5)
    assert [label["label"] for label in prediction["top"]] == ["good", "bad"]
    assert sum(label["score"] for label in prediction["top"]) == pytest.approx(1, abs=1e-5)


def test_a_plain_text_gets_the_text_that_is_written_for_it(echo: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    [prediction] = predictions(client.post("/predict", content="good film", headers=TEXT))
    assert (prediction["text"], prediction["score"]) == ("good film", 0.5)
    assert prediction["top"] == [{"text": "good film", "score": 0.5}, {"text": "good", "score": 0.25}]


def test_a_charset_is_heeded(moods: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    content = "good film".encode("utf-16")
    response = client.post("/predict", content=content, headers={"Content-Type": "text/plain; charset=utf-16"})
    assert predictions(response)[0]["score"] == pytest.approx(GOOD_FILM, abs=1e-5)


def test_texts_in_json_are_answered_in_order_each_as_if_alone(moods: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    texts = ("bad film", "a good good film a a", "good", "fine")
    together = predictions(client.post("/predict", json=instances(*texts)))
    assert [prediction["label"] for prediction in together][:3] == ["bad", "good", "good"]
    alone = [predictions(client.post("/predict", content=text, headers=TEXT))[0] for text in texts]
    assert together == alone


def test_texts_of_any_length_are_written_in_order(echo: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    texts = ("bad", "a good film", "fine film", "a fine good film bad a")
    found = predictions(client.post("/predict", json=instances(*texts)))
    assert [prediction["text"] for prediction in found] == list(texts)


@pytest.mark.parametrize("top_k", [1, 2, 99])
def test_top_k_is_as_asked_or_all_there_are(moods: Repository, serve: Serve, top_k: int) -> None:
    publish_writer(moods, "echo")
    client = serve().until_ready().client
    for model, key in (("moods", "label"), ("echo", "text")):
        response = client.post(f"/models/{model}/predict?top_k={top_k}", content="good film", headers=TEXT)
        [prediction] = predictions(response)
        assert len(prediction["top"]) == min(top_k, 2)
        assert prediction["top"][0] == {key: prediction[key], "score": prediction["score"]}
        [prediction] = predictions(client.post(f"/models/{model}/predict", json=instances("a film", top_k=top_k)))
        assert len(prediction["top"]) == min(top_k, 2)


@pytest.mark.parametrize("text", ["", " \n\t", "\u2003"])
def test_an_empty_text_is_refused(moods: Repository, serve: Serve, text: str) -> None:
    client = serve().until_ready().client
    for response in (
        client.post("/predict", content=text, headers=TEXT),
        client.post("/predict", json=instances(text)),
    ):
        assert "empty" in problem(response, 422, "invalid_request").detail


def test_a_text_of_too_many_tokens_is_refused_and_says_the_limit(moods: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    most = "good " * 6
    assert predictions(client.post("/predict", content=most, headers=TEXT))[0]["label"] == "good"
    for response in (
        client.post("/predict", content=most + "film", headers=TEXT),
        client.post("/predict", json=instances(most + "film")),
    ):
        detail = problem(response, 413, "text_too_long").detail
        assert "9 tokens" in detail
        assert "at most 8" in detail


def test_a_model_that_cuts_answers_a_text_of_any_length(repository: Repository, serve: Serve) -> None:
    publish_texts(repository, "cuts", tokenize=Tokenization(max_tokens=4, truncate=True))
    client = serve().until_ready().client
    # Of the beginning and three words, two are good.
    expected = torch.tensor([0.0, 8 * 2 / 4]).softmax(0)[1].item()
    for rest in (" film", " film" + " bad" * 1000):
        [prediction] = predictions(client.post("/predict", content="good good" + rest, headers=TEXT))
        assert prediction["label"] == "good"
        assert prediction["score"] == pytest.approx(expected, abs=1e-5)


def test_a_bad_text_fails_alone_in_its_place(moods: Repository, serve: Serve) -> None:
    client = serve(max_text_chars=40).until_ready().client
    texts = ("bad film", "", "good " * 7, "x" * 41, "good film")
    found = predictions(client.post("/predict", json=instances(*texts)))
    assert [prediction.get("label") for prediction in found] == ["bad", None, None, None, "good"]
    codes = [prediction["error"]["code"] for prediction in found[1:4]]
    assert codes == ["invalid_request", "text_too_long", "text_too_long"]


def test_texts_that_are_all_bad_get_their_own_errors_when_only_texts_are_served(
    moods: Repository, serve: Serve
) -> None:
    client = serve(max_text_chars=5).until_ready().client
    problem(client.post("/predict", content="x" * 6, headers=TEXT), 413, "text_too_long")
    found = problem(client.post("/predict", json=instances("x" * 6)), 413, "text_too_long")
    assert "instances.0.text" in found.detail
    wrong = client.post("/predict", json={"instances": [{"text": 7}]})
    assert "instances.0: text" in problem(wrong, 422, "invalid_request").detail


def test_texts_and_images_in_one_request_are_refused(moods: Repository, serve: Serve) -> None:
    publish(moods, "shades")
    client = serve().until_ready().client
    mixed = [{"text": "good"}, {"image": base64.b64encode(png(0)).decode()}]
    response = client.post("/predict", json={"instances": mixed})
    assert "mixed" in problem(response, 422, "invalid_request").detail
    found = predictions(client.post("/models/moods/predict", json={"instances": mixed}))
    assert found[0]["label"] == "good"
    assert found[1]["error"]["detail"] == "moods takes texts, not images"


@pytest.mark.parametrize("name", ["moods", "echo"])
def test_an_image_for_a_text_model_is_refused(moods: Repository, serve: Serve, name: str) -> None:
    publish_writer(moods, "echo")
    client = serve().until_ready().client
    response = client.post(f"/models/{name}/predict", content=png(0), headers={"Content-Type": "image/png"})
    assert problem(response, 422, "invalid_request").detail == f"{name} takes texts, not images"


def test_an_image_is_refused_while_no_model_takes_images(moods: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    response = client.post("/predict", content=png(0), headers={"Content-Type": "image/png"})
    assert "no live model takes images" in problem(response, 422, "invalid_request").detail


def test_a_model_and_a_version_can_be_addressed(moods: Repository, serve: Serve) -> None:
    publish_writer(moods, "echo")
    client = serve().until_ready().client
    version = client.get("/models/echo").json()["version"]
    for path in ("/predict?model=echo", "/models/echo/predict", f"/models/echo/versions/{version}/predict"):
        assert predictions(client.post(path, content="a film", headers=TEXT))[0]["text"] == "a film"
    response = client.post("/predict", json=instances("good film", model="moods"))
    assert predictions(response)[0]["label"] == "good"


def test_each_kind_of_input_has_its_own_default(moods: Repository, serve: Serve) -> None:
    publish(moods, "shades")
    client = serve().until_ready().client
    assert reply(client.post("/predict", content="good", headers=TEXT)).model == "moods"
    response = client.post("/predict", content=png(0), headers={"Content-Type": "image/png"})
    assert reply(response).model == "shades"
    metadata = Metadata.model_validate_json(client.get("/metadata").content)
    assert metadata.default_models == {"image": "shades", "text": "moods"}


def test_several_text_models_and_no_default_ask_for_a_choice(moods: Repository, serve: Serve) -> None:
    publish_writer(moods, "echo")
    client = serve().until_ready().client
    response = client.post("/predict", content="good", headers=TEXT)
    detail = problem(response, 422, "invalid_request").detail
    assert "texts" in detail
    assert "echo, moods" in detail
    assert client.get("/metadata").json()["default_models"] == {"image": None, "text": None}


def test_the_settings_default_wins_over_the_repositorys(moods: Repository, serve: Serve) -> None:
    publish_writer(moods, "echo")
    moods.set_default("text", "moods")
    by_repository = serve().until_ready().client
    assert reply(by_repository.post("/predict", content="good", headers=TEXT)).model == "moods"
    by_setting = serve(default_text_model="echo").until_ready().client
    assert reply(by_setting.post("/predict", content="good", headers=TEXT)).model == "echo"
    assert by_setting.get("/metadata").json()["default_models"]["text"] == "echo"


def test_a_live_text_model_says_what_it_is_and_takes(moods: Repository, serve: Serve) -> None:
    publish_writer(moods, "echo", tokenize=Tokenization(max_tokens=5, truncate=True))
    client = serve(max_text_chars=777).until_ready().client
    sorts = ModelInfo.model_validate_json(client.get("/models/moods").content)
    writes = ModelInfo.model_validate_json(client.get("/models/echo").content)
    assert (sorts.task, sorts.labels) == ("text-classification", ["bad", "good"])
    assert (writes.task, writes.labels) == ("text-to-text", [])
    assert sorts.input == TextLimits(max_tokens=8, truncate=False, max_chars=777)
    assert writes.input == TextLimits(max_tokens=5, truncate=True, max_chars=777)


def test_every_answer_about_texts_matches_its_schema(moods: Repository, serve: Serve) -> None:
    publish_writer(moods, "echo")
    client = serve().until_ready().client
    document = client.get("/openapi.json").json()

    def check(path: str, method: str, response: httpx.Response) -> None:
        content = document["paths"][path][method]["responses"][str(response.status_code)]["content"]
        schema = content[response.headers["content-type"]]["schema"] | {"components": document["components"]}
        jsonschema.validate(response.json(), schema)

    for name in ("moods", "echo"):
        url, path = f"/models/{name}/predict", "/models/{name}/predict"
        check(path, "post", client.post(url, content="good film", headers=TEXT))
        check(path, "post", client.post(url, json=instances("good", "", "a film")))
        check(path, "post", client.post(url, content="", headers=TEXT))
        check(path, "post", client.post(url, content="good " * 9, headers=TEXT))
        check("/models/{name}", "get", client.get(f"/models/{name}"))
    written = document["components"]["schemas"]["WrittenText"]
    jsonschema.validate(
        client.post("/models/echo/predict", content="a film", headers=TEXT).json()["predictions"][0],
        written | {"components": document["components"]},
    )
    request = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(instances("good"), request)


def together(running: Running, path: str, texts: Sequence[str]) -> tuple[dict[str, dict[str, Any]], set[int]]:
    """Ask for every text at once; return its prediction, and the sizes of the batches that were run."""
    batcher = running.service.registry.live[path.split("/")[2]].batcher
    gate, entered = threading.Event(), threading.Event()
    real_infer = batcher._executor._infer
    sizes: set[int] = set()
    found: dict[str, dict[str, Any]] = {}

    def held(examples: Any, *how: Any) -> Any:
        entered.set()
        assert gate.wait(20)
        sizes.add(len(examples))
        return real_infer(examples, *how)

    def ask(text: str) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=60) as client:
            found[text] = predictions(client.post(path, content=text, headers=TEXT))[0]

    batcher._executor._infer = held
    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    threads[0].start()
    assert entered.wait(20)
    # While the first is held up, the others gather.
    for thread in threads[1:]:
        thread.start()
    until(lambda: batcher.open_tickets == len(texts))
    gate.set()
    for thread in threads:
        thread.join()
    batcher._executor._infer = real_infer
    return found, sizes


TEXTS = ("good", "a bad film", "fine", "a good film a bad film", "bad bad", "film a film a", "good a", "xyzzy")


def test_texts_of_different_lengths_at_once_each_get_the_answer_they_get_alone(
    moods: Repository, serve: Serve
) -> None:
    publish_writer(moods, "echo")
    running = serve().until_ready()
    for path in ("/models/moods/predict", "/models/echo/predict"):
        alone = {text: predictions(running.client.post(path, content=text, headers=TEXT))[0] for text in TEXTS}
        found, sizes = together(running, path, TEXTS)
        assert max(sizes) > 1
        assert found == alone


def test_networks_answer_texts_of_different_lengths_at_once_as_they_do_alone(
    repository: Repository, serve: Serve
) -> None:
    torch.manual_seed(0)
    size = Tokenizer(tokenizer_json()).size
    recurrent = Recurrent("lstm", size, 2, dim=6, hidden_size=5, layers=1, dropout=0.0)
    publish_texts(repository, "recurrent", TextClassifier(recurrent))
    seq2seq = Seq2Seq(size, size, dim=8, heads=2, layers=1, hidden=8, dropout=0.0, max_steps=6, beams=2)
    publish_writer(repository, "seq2seq", seq2seq)
    running = serve().until_ready()
    for path in ("/models/recurrent/predict", "/models/seq2seq/predict"):
        alone = {text: predictions(running.client.post(path, content=text, headers=TEXT))[0] for text in TEXTS}
        found, sizes = together(running, path, TEXTS)
        assert max(sizes) > 1
        for text, expected in alone.items():
            assert found[text].get("text") == expected.get("text")
            assert found[text].get("label") == expected.get("label")
            assert found[text]["score"] == pytest.approx(expected["score"], abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), -0.5, 1.5])
def test_written_texts_whose_scores_are_no_probabilities_are_never_answered(
    echo: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    running = serve().until_ready()
    outputs = torch.full((1, 2, 3), 5), torch.tensor([[0.5, value]])
    monkeypatch.setattr(TorchScriptGraph, "__call__", lambda *_, **__: outputs)
    problem(running.client.post("/predict", content="good", headers=TEXT), 500, "inference_failed")


class Broken(Mood):
    """Gives scores whatever a model that writes should give."""

    def forward(self, tokens_NL: Tensor) -> Tensor:
        return torch.zeros(tokens_NL.shape[0], 2)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rules": b"{}"}, "TokenizerInvalid"),
        ({"target_rules": b"{}"}, "TokenizerInvalid"),
        ({"module": Broken(0, 0)}, "GoldenMismatch"),
    ],
)
def test_a_version_that_cannot_read_or_write_is_refused_and_the_one_before_serves_on(
    echo: Repository, serve: Serve, changes: dict[str, Any], error: str
) -> None:
    running = serve().until_ready()
    before = echo.open("echo").manifest
    publish_writer(echo, "echo", golden=before.golden, **changes)
    until(lambda: "echo" in running.service.registry.refusals)
    info = ModelInfo.model_validate_json(running.client.get("/models/echo").content)
    assert info.refused is not None
    assert (info.version, info.refused.error) == (before.version, error)
    response = running.client.post("/predict", content="a film", headers=TEXT)
    assert predictions(response)[0]["text"] == "a film"
