"""A copy of the traffic goes to the candidate; what it says is compared, and nobody is answered by it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor, nn

from app import shadowing
from app.batching import Batcher
from app.registry import LiveModel
from models.candidate import Candidate
from models.repository import Repository
from models.tokenization import Tokenizer
from tests.bundles import Always, Mood, Shades, decoding, publish, publish_texts, stage, tokenizer_json
from tests.images import png
from tests.open_inference.target import Target
from tests.servers import Running, process, until
from training.tokenizing import train_tokenizer

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
KEYS = [f"user-{number}" for number in range(40)]


class Sure(nn.Module):
    """Says "grey" whatever it is shown, and how sure it is of it."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return torch.tensor([[0.25, 0.5, 0.25]], device=images_NCHW.device).repeat(images_NCHW.shape[0], 1)


class FailsAtWhite(nn.Module):
    """Says "grey" of all but what is white."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if images_NCHW.float().mean() > 254:
            raise ValueError("this is white")
        return torch.tensor([[0.0, 1.0, 0.0]], device=images_NCHW.device).repeat(images_NCHW.shape[0], 1)


def publish_beside(repository: Repository, module: nn.Module, **changes: Any) -> str:
    with repository.staging("shades") as staging:
        stage(staging, "shades", module, **changes)
        return repository.publish("shades", staging, current=False).manifest.version


def candidate(client: httpx.Client, name: str = "shades") -> dict[str, Any]:
    found: dict[str, Any] | None = client.get(f"/models/{name}").json()["candidate"]
    return found or {"live": False}


def compared(client: httpx.Client, items: int, name: str = "shades") -> dict[str, Any]:
    """What is told of the candidate, once so many items are counted."""

    def counted() -> bool:
        told: dict[str, int] = candidate(client, name)["compared"] or {}
        return sum(told.get(result, 0) for result in ("agreed", "differed", "failed", "skipped")) >= items

    until(counted)
    told: dict[str, Any] = candidate(client, name)["compared"]
    return told


def ask(client: httpx.Client, key: str = "", grey: int = 0, **headers: str) -> dict[str, Any]:
    given = PNG | {"X-Routing-Key": key} | headers
    response = client.post("/predict", content=png(grey), headers=given)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def test_what_a_candidate_says_is_compared_and_never_returned(repository: Repository, serve: Serve) -> None:
    current = publish(repository, "shades", Always(1)).manifest.version
    tried = publish_beside(repository, Sure())
    repository.set_candidate("shades", tried, 0.0, shadow=1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    assert candidate(client)["compared"] is None
    assert {ask(client, key)["version"] for key in KEYS[:5]} == {current}
    told = compared(client, 5)
    assert (told["agreed"], told["differed"], told["failed"], told["skipped"]) == (5, 0, 0, 0)
    # It says the same, and is half as sure of it.
    assert (told["agreement"], told["mean_score_distance"]) == (1.0, pytest.approx(0.5))
    assert 0 < told["mean_current_ms"] < 10_000
    assert 0 < told["mean_candidate_ms"] < 10_000


def test_a_candidate_that_says_otherwise_is_found_out(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Shades())
    repository.set_candidate("shades", publish_beside(repository, Always(0)), 0.0, shadow=1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    for grey in (0, 0, 0, 255):
        ask(client, grey=grey)
    told = compared(client, 4)
    assert (told["agreed"], told["differed"], told["agreement"]) == (3, 1, 0.75)
    assert told["mean_score_distance"] == pytest.approx(0.25, abs=0.01)
    told_too = client.get("/metrics").text
    version = f'version="{candidate(client)["version"]}"'
    assert f'lantern_shadow_items_total{{model="shades",result="differed",{version}}} 1.0' in told_too
    assert f'lantern_shadow_score_distance_count{{model="shades",{version}}} 4.0' in told_too
    assert f'lantern_shadow_seconds_count{{model="shades",of="candidate",{version}}} 4.0' in told_too


def test_only_the_share_of_the_keys_is_copied_and_what_it_answers_is_not(
    repository: Repository, serve: Serve
) -> None:
    current = publish(repository, "shades", Always(1)).manifest.version
    tried = publish_beside(repository, Always(1))
    repository.set_candidate("shades", tried, 0.25, shadow=0.5)
    known = Candidate.parse("shades", (repository.root / "shades/CANDIDATE").read_bytes())
    copied = [key for key in KEYS if known.shadows("shades", key)]
    answered = [key for key in KEYS if known.answers("shades", key)]
    assert set(copied).isdisjoint(answered)
    assert 10 < len(copied) < 30
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    assert {key for key in KEYS if ask(client, key)["version"] == tried} == set(answered)
    # Whoever names a version is not part of it.
    client.post(f"/models/shades/versions/{current}/predict", content=png(0), headers=PNG)
    client.post("/predict", content=b"no image", headers=PNG | {"X-Routing-Key": copied[0]})
    ask(client, copied[0])
    assert compared(client, len(copied) + 1)["agreed"] == len(copied) + 1


def test_the_open_inference_protocol_and_texts_are_compared_too(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    repository.set_candidate("shades", publish_beside(repository, Sure()), 0.0, shadow=1.0)
    current, tried = (publish_texts(repository, "moods").manifest.version for _ in range(2))
    repository.rollback("moods", current)
    repository.set_candidate("moods", tried, 0.0, shadow=1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"] and candidate(client, "moods")["live"])
    asked = Target(client, "shades")
    assert asked.infer(asked.request()).status_code == 200
    told = compared(client, 1)
    assert (told["agreed"], told["mean_score_distance"]) == (1, pytest.approx(0.5))
    body = {"instances": [{"text": "a good film"}, {"text": "a bad film"}], "model": "moods"}
    assert client.post("/predict", json=body).status_code == 200
    told = compared(client, 2, "moods")
    assert (told["agreed"], told["mean_score_distance"]) == (2, pytest.approx(0, abs=1e-5))


def test_a_candidate_of_another_shape_answers_files_and_no_tensors(repository: Repository, serve: Serve) -> None:
    current = publish(repository, "shades", Always(1)).manifest.version
    tried = publish_beside(repository, Always(1), decode=decoding(size=(4, 4)))
    repository.set_candidate("shades", tried, 1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    assert ask(client)["version"] == tried
    asked = Target(client, "shades")
    response = asked.infer(asked.request())
    assert (response.status_code, response.json()["model_version"]) == (200, current)


def test_a_tensor_for_a_version_is_of_its_shape_whoever_is_tried(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    tried = publish_beside(repository, Always(2), decode=decoding(size=(4, 4)))
    repository.set_candidate("shades", tried, 0.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    small = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 4, 4], "data": [0] * 16}
    response = Target(client, "shades").infer({"inputs": [small]}, f"/versions/{tried}")
    assert (response.status_code, response.json()["model_version"]) == (200, tried)


def test_a_tensor_that_a_candidate_does_not_take_is_not_copied_to_it(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    tried = publish_beside(repository, Always(1), decode=decoding(size=(4, 4)))
    repository.set_candidate("shades", tried, 0.0, shadow=1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    asked = Target(client, "shades")
    assert asked.infer(asked.request()).status_code == 200
    ask(client)  # A file, which it takes.
    told = compared(client, 1)
    assert (told["agreed"], told["failed"], told["skipped"]) == (1, 0, 0)


def test_tokens_go_to_no_candidate_to_which_they_are_other_words(repository: Repository, serve: Serve) -> None:
    current = publish_texts(repository, "moods").manifest.version
    rules = train_tokenizer(["film good a", "film bad a bad"], "words", 20, lowercase=True)
    tried = publish_texts(repository, "moods", Mood(6, 7), rules=rules).manifest.version
    repository.rollback("moods", current)
    repository.set_candidate("moods", tried, 1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client, "moods")["live"])
    asked = Target(client, "moods")
    tokens = Tokenizer(tokenizer_json()).encode("a good film").tolist()
    as_tokens = {"name": "tokens", "datatype": "INT64", "shape": [1, len(tokens)], "data": tokens}
    assert asked.infer({"inputs": [as_tokens]}).json()["model_version"] == current
    # What a text is to each model, it sees to itself.
    as_text = {"name": "tokens", "datatype": "BYTES", "shape": [1], "data": ["a good film"]}
    assert asked.infer({"inputs": [as_text]}).json()["model_version"] == tried


def test_a_candidate_answers_its_share_while_the_current_version_is_away(
    repository: Repository, serve: Serve
) -> None:
    publish(repository, "shades", Always(1))
    tried = publish_beside(repository, Always(1))
    repository.set_candidate("shades", tried, 1.0)
    running = serve().until_ready()
    client = running.client
    until(lambda: candidate(client)["live"])
    asked = Target(client, "shades")
    request = asked.request()
    # As of a version that hung, and is loaded anew.
    running.service.registry.live.pop("shades")
    response = asked.infer(request)
    assert (response.status_code, response.json()["model_version"]) == (200, tried)


def test_what_a_candidate_cannot_answer_is_told_and_harms_nobody(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    repository.set_candidate("shades", publish_beside(repository, FailsAtWhite()), 0.0, shadow=1.0)
    client = serve().until_ready().client
    until(lambda: candidate(client)["live"])
    assert ask(client, grey=255)["predictions"][0]["label"] == "grey"
    told = compared(client, 1)
    assert (told["failed"], told["agreement"], told["mean_candidate_ms"]) == (1, None, None)
    ask(client, grey=0)
    assert compared(client, 2)["agreed"] == 1


def test_a_hung_candidate_holds_up_one_thread_and_what_is_too_much_is_left_out(
    repository: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "MOST_WAITING", 2)
    publish(repository, "shades", Always(1))
    repository.set_candidate("shades", publish_beside(repository, Always(1)), 0.0, shadow=1.0)
    running = serve(cpu_threads=2).until_ready()
    client = running.client
    until(lambda: candidate(client)["live"])
    (tried,) = running.service.registry.others_of("shades")
    go_on, infer = threading.Event(), tried.batcher._executor._infer
    hangs = threading.Event()

    def hang(*given: Any) -> Any:
        hangs.set()
        assert go_on.wait(30)
        return infer(*given)

    tried.batcher._executor._infer = hang
    ask(client)
    assert hangs.wait(10)
    for _ in range(5):
        assert ask(client)["predictions"][0]["label"] == "grey"
    assert compared(client, 3)["skipped"] == 3
    go_on.set()
    assert compared(client, 6)["agreed"] == 3


class Gate:
    """Holds up a version's batches."""

    def __init__(self, model: LiveModel) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self._infer = model.batcher._executor._infer
        model.batcher._executor._infer = self._hold

    def _hold(self, *given: Any) -> Any:
        self.begun.release()
        assert self.open.wait(60)
        return self._infer(*given)


def test_a_candidate_that_is_overdue_gets_no_second_thread(
    repository: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "PATIENCE_S", 0.1)
    publish(repository, "shades", Always(1))
    repository.set_candidate("shades", publish_beside(repository, Always(1)), 0.0, shadow=1.0)
    running = serve(cpu_threads=2).until_ready()
    client = running.client
    until(lambda: candidate(client)["live"])
    (tried,) = running.service.registry.others_of("shades")
    gate = Gate(tried)
    ask(client)
    assert gate.begun.acquire(timeout=10)
    assert compared(client, 1)["failed"] == 1
    for _ in range(3):
        assert ask(client)["predictions"][0]["label"] == "grey"
    assert compared(client, 4)["skipped"] == 3
    assert not gate.begun.acquire(blocking=False)
    gate.open.set()
    # Once it is back it is asked again.
    until(lambda: not tried.batcher.running)
    ask(client)
    assert compared(client, 5)["agreed"] == 1


def test_a_candidate_that_hangs_is_not_loaded_anew_to_hang_again(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    version = publish_beside(repository, Always(1))
    repository.set_candidate("shades", version, 0.0, shadow=1.0)
    running = serve(cpu_threads=2, hang_timeout_s=0.5).until_ready()
    client = running.client
    until(lambda: candidate(client)["live"])
    (tried,) = running.service.registry.others_of("shades")
    gate = Gate(tried)
    ask(client)
    until(lambda: not candidate(client)["live"])
    gate.open.set()
    assert not running.service.reloader._companions._attempts.is_due(f"shades/{version}", version)
    refused = running.service.registry.other_refusals["shades"][version]
    assert (refused.error, "tried no more" in refused.detail) == ("ModelHung", True)
    # Whoever administers may have it tried again.
    running.service.reloader.retry("shades")
    until(lambda: candidate(client)["live"])


def test_copies_wait_until_nobody_else_does(
    repository: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "QUIET_WITHIN_S", 0.1)
    publish(repository, "shades", Always(1))
    publish(repository, "others", Always(1))
    repository.set_default("image", "shades")
    repository.set_candidate("shades", publish_beside(repository, Always(1)), 0.0, shadow=1.0)
    running = serve(cpu_threads=1).until_ready()
    client = running.client
    until(lambda: candidate(client)["live"])
    others = running.service.registry.live["others"].batcher
    with monkeypatch.context() as busy:
        busy.setattr(Batcher, "waiting", property(lambda batcher: int(batcher is others)))
        ask(client)
        assert compared(client, 1)["skipped"] == 1
    ask(client)
    assert compared(client, 2)["agreed"] == 1


def test_what_no_batch_has_taken_up_waits(repository: Repository, serve: Serve) -> None:
    publish(repository, "shades", Always(1))
    running = serve(cpu_threads=1).until_ready()
    model = running.service.registry.live["shades"]
    gate = Gate(model)
    with ThreadPoolExecutor(5) as askers:
        asked = [askers.submit(ask, running.client)]
        assert gate.begun.acquire(timeout=10)
        assert (model.batcher.waiting, model.batcher.running) == (0, 1)
        asked += [askers.submit(ask, running.client) for _ in range(4)]
        until(lambda: model.batcher.open_tickets == 5)
        assert model.batcher.waiting == 4
        gate.open.set()
        assert len([each.result() for each in asked]) == 5
    assert model.batcher.waiting == 0


def test_it_is_told_for_all_worker_processes(repository: Repository) -> None:
    publish(repository, "shades", Always(1))
    repository.set_candidate("shades", publish_beside(repository, Always(1)), 0.0, shadow=1.0)
    with process(repository.root, workers=2, reload_interval_s=0.05) as service:
        service.until_ready()
        clients = [httpx.Client(base_url=service.client.base_url, timeout=60) for _ in range(4)]
        try:
            for client in clients:
                until(lambda client=client: candidate(client)["live"])  # type: ignore[misc]
                ask(client)
            assert compared(service.client, 4)["agreed"] == 4
        finally:
            for client in clients:
                client.close()
