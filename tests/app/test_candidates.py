"""A candidate answers its share of the requests that name no version, the same keys every time."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import app.gate
from app.errors import Overloaded
from models.candidate import Candidate
from models.repository import Repository
from tests.bundles import Always, publish, stage
from tests.images import png
from tests.open_inference.target import Target
from tests.servers import Running, process, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
KEYS = [f"user-{number}" for number in range(60)]


@pytest.fixture
def versions(repository: Repository) -> tuple[str, str]:
    """The current one, and one beside it."""
    current = publish(repository, "shades", Always(0)).manifest.version
    return current, publish_beside(repository)


def publish_beside(repository: Repository, index: int = 1) -> str:
    with repository.staging("shades") as staging:
        stage(staging, "shades", Always(index))
        return repository.publish("shades", staging, current=False).manifest.version


def answered_by(client: httpx.Client, key: str | None = None, path: str = "/predict") -> str:
    headers = PNG | ({} if key is None else {"X-Routing-Key": key})
    response = client.post(path, content=png(0), headers=headers)
    assert response.status_code == 200, response.text
    version: str = response.json()["version"]
    return version


def until_tried(client: httpx.Client, version: str | None, share: float = 0.0) -> None:
    wanted = (
        None
        if version is None
        else {"version": version, "share": share, "shadow": 0.0, "live": True, "compared": None}
    )
    until(lambda: client.get("/models/shades").json()["candidate"] == wanted)


def test_a_version_that_is_busy_has_none_refused_whom_the_candidate_answers(
    repository: Repository, serve: Serve, versions: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_asked: object) -> None:
        raise Overloaded("busy", free_s=math.inf)

    running = serve().until_ready()
    repository.set_candidate("shades", versions[1], 0.5)
    until_tried(running.client, versions[1], 0.5)
    monkeypatch.setattr(running.service.registry.live["shades"].batcher, "admit", refuse)
    monkeypatch.setattr(app.gate, "BELIEVED_S", 3_600.0)
    candidate = Candidate.parse("shades", (repository.root / "shades/CANDIDATE").read_bytes())
    for key in KEYS:
        response = running.client.post("/predict", content=png(0), headers=PNG | {"X-Routing-Key": key})
        assert response.status_code == (200 if candidate.answers("shades", key) else 503)


def test_a_share_of_the_keys_is_answered_by_the_candidate_every_time(
    repository: Repository, serve: Serve, versions: tuple[str, str]
) -> None:
    current, tried = versions
    client = serve().until_ready().client
    assert {answered_by(client, key) for key in KEYS} == {current}
    repository.set_candidate("shades", tried, 0.5)
    until_tried(client, tried, 0.5)
    first = {key: answered_by(client, key) for key in KEYS}
    assert set(first.values()) == {current, tried}
    assert 15 < list(first.values()).count(tried) < 45
    assert {key: answered_by(client, key, "/models/shades/predict") for key in KEYS} == first
    # What is said of the model is said of its current version, whoever else answers.
    repository.set_candidate("shades", tried, 1.0)
    until_tried(client, tried, 1.0)
    assert client.get("/models/shades").json()["version"] == current
    repository.set_candidate("shades", tried, 0.5)
    until_tried(client, tried, 0.5)
    # Whoever names a version gets that, and whoever gives no key is answered by one or the other.
    for version in versions:
        assert {answered_by(client, key, f"/models/shades/versions/{version}/predict") for key in KEYS} == {
            version
        }
    assert {answered_by(client) for _ in KEYS} == {current, tried}


def test_the_open_inference_protocol_goes_the_same_way(
    repository: Repository, serve: Serve, versions: tuple[str, str]
) -> None:
    client = serve().until_ready().client
    repository.set_candidate("shades", versions[1], 0.5)
    until_tried(client, versions[1], 0.5)
    asked = Target(client, "shades")
    for key in KEYS[:20]:
        response = client.post("/v2/models/shades/infer", json=asked.request(), headers={"X-Routing-Key": key})
        assert response.json()["model_version"] == answered_by(client, key)


def test_promoting_and_stopping_take_over_while_requests_come(
    repository: Repository, serve: Serve, versions: tuple[str, str]
) -> None:
    current, tried = versions
    running = serve().until_ready()
    client = running.client
    repository.set_candidate("shades", tried, 1.0)
    until_tried(client, tried, 1.0)
    assert {answered_by(client, key) for key in KEYS} == {tried}
    repository.drop_candidate("shades")
    until_tried(client, None)
    until(lambda: client.get("/models/shades").json()["live_versions"] == [current])
    assert {answered_by(client, key) for key in KEYS} == {current}
    repository.set_candidate("shades", tried, 0.5)
    until_tried(client, tried, 0.5)
    kept = running.service.registry.resolve("shades", tried)
    repository.promote("shades")
    running.until_version("shades", tried)
    until_tried(client, None)
    assert running.service.registry.live["shades"] is kept
    assert {answered_by(client, key) for key in KEYS} == {tried}


def test_nobody_goes_back_while_a_candidate_is_promoted(repository: Repository, versions: tuple[str, str]) -> None:
    tried = versions[1]
    with process(repository.root, workers=2, reload_interval_s=0.05) as service, ThreadPoolExecutor(8) as askers:
        client = service.until_ready().client
        repository.set_candidate("shades", tried, 0.5)
        candidate = Candidate.parse("shades", (repository.root / "shades/CANDIDATE").read_bytes())
        keys = [key for key in KEYS if candidate.answers("shades", key)]

        def ask_all() -> list[str]:
            return list(askers.map(lambda key: answered_by(client, key), keys * 5))

        until(lambda: set(ask_all()) == {tried})
        # Asked all the while, for a version goes live in one worker process before it does in the other.
        promoting = askers.submit(repository.promote, "shades")
        answered = ask_all()
        while {key for key in KEYS if answered_by(client, key) != tried}:
            answered += ask_all()
        assert promoting.result().version == tried
        assert set(answered) == {tried}


def test_a_candidate_that_cannot_be_loaded_leaves_everybody_to_the_current_version(
    repository: Repository, serve: Serve, versions: tuple[str, str]
) -> None:
    current, tried = versions
    repository.set_candidate("shades", tried, 1.0)
    (repository.root / "shades" / tried / "model.ts.pt").write_bytes(b"damaged")
    client = serve().until_ready().client
    until(lambda: client.get("/models/shades").json()["refused_versions"] != [])
    info = client.get("/models/shades").json()
    assert (info["candidate"]["version"], info["candidate"]["live"]) == (tried, False)
    assert info["refused_versions"][0]["error"] == "FileCorrupt"
    assert {answered_by(client, key) for key in KEYS} == {current}


def test_a_file_that_is_damaged_keeps_the_candidate_of_before(
    repository: Repository, serve: Serve, versions: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    repository.set_candidate("shades", versions[1], 1.0)
    client = serve().until_ready().client
    until_tried(client, versions[1], 1.0)
    (repository.root / "shades/CANDIDATE").write_text("{}")
    until(lambda: "the candidate of before is kept" in caplog.text)
    assert answered_by(client) == versions[1]

    def told() -> list[tuple[str | None, bool]]:
        refused = client.get("/models/shades").json()["refused_versions"]
        return [(each["version"], "shades/CANDIDATE: version" in each["detail"]) for each in refused]

    until(lambda: told() == [(None, True)])
    (repository.root / "shades/CANDIDATE").unlink()
    until_tried(client, None)
    assert answered_by(client) == versions[0]
    assert client.get("/models/shades").json()["refused_versions"] == []


def test_a_candidate_is_seen_in_the_metrics(
    repository: Repository, serve: Serve, versions: tuple[str, str]
) -> None:
    repository.set_candidate("shades", versions[1], 0.25)
    client = serve().until_ready().client
    until_tried(client, versions[1], 0.25)
    line = f'lantern_candidate_share{{model="shades",version="{versions[1]}"}}'
    assert f"{line} 0.25" in client.get("/metrics").text
    repository.drop_candidate("shades")
    until_tried(client, None)
    assert line not in client.get("/metrics").text
