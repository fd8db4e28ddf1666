"""Load, unload, try, promote and roll back over HTTP: for administrators, and nobody else."""

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from app.api_keys import line_of, new_key
from app.inference import LoadedModel
from models.bundle import Bundle
from models.lock import locked
from models.manifest import GoldenExample
from models.repository import Repository
from tests.bundles import Always, publish, publish_texts, stage
from tests.images import png
from tests.servers import Running, process, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
KEY, OTHER_KEY = new_key(), new_key()
ADMIN = {"Authorization": f"Bearer {KEY}"}
# There are at least these; what else there is the document tells.
ROUTES = frozenset(
    {
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/{name}/load"),
        ("POST", "/v2/repository/models/{name}/unload"),
        ("PUT", "/admin/models/{name}/candidate"),
        ("DELETE", "/admin/models/{name}/candidate"),
        ("POST", "/admin/models/{name}/promote"),
        ("POST", "/admin/models/{name}/rollback"),
    }
)
PLACES = ("/admin/", "/v2/repository/")


@pytest.fixture
def admin_keys(tmp_path: Path) -> Path:
    file = tmp_path / "admin-keys"
    file.write_text(line_of("operator", KEY))
    return file


@pytest.fixture
def versions(repository: Repository) -> tuple[str, str]:
    """An older one, which is current, and a newer one."""
    older, newer = (publish(repository, "shades", Always(index)).manifest.version for index in range(2))
    repository.rollback("shades", older)
    return older, newer


@pytest.fixture
def client(versions: tuple[str, str], serve: Serve, admin_keys: Path) -> httpx.Client:
    assert versions
    return serve(admin_keys_file=admin_keys).until_ready().client


def operations(client: httpx.Client) -> set[tuple[str, str]]:
    """Method and path of whatever the document has."""
    paths = client.get("/openapi.json", headers=ADMIN).json()["paths"]
    return {(method.upper(), path) for path, found in paths.items() for method in found}


def url(path: str) -> str:
    return re.sub(r"\{\w+\}", "shades", path)


@pytest.fixture
def routes(versions: tuple[str, str], serve: Serve, admin_keys: Path) -> list[tuple[str, str]]:
    """What there is with administrators and is not without."""
    assert versions
    everybodys = operations(serve().client)
    assert not [path for _, path in everybodys if path.startswith(PLACES)]
    of_administrators = operations(serve(admin_keys_file=admin_keys).client) - everybodys
    assert of_administrators >= ROUTES
    return sorted(of_administrators)


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/models/shades/predict", content=png(0), headers=PNG)


def call(client: httpx.Client, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    response = client.request(method, path, json=body, headers=ADMIN)
    assert response.status_code == status, response.text
    return response.json()


def index(client: httpx.Client, **asked: bool) -> list[tuple[str, str, str, str]]:
    found = call(client, "POST", "/v2/repository/index", asked)
    return [(each["name"], each["version"], each["state"], each["reason"]) for each in found]


def test_without_administrators_there_are_no_such_routes(serve: Serve, routes: list[tuple[str, str]]) -> None:
    client = serve().until_ready().client
    for method, path in routes:
        assert client.request(method, url(path), headers=ADMIN).status_code == 404, (method, path)
    assert ask(client).status_code == 200


@pytest.mark.parametrize("keys", [False, True])
def test_only_an_administrators_key_opens_them(
    versions: tuple[str, str],
    serve: Serve,
    tmp_path: Path,
    admin_keys: Path,
    routes: list[tuple[str, str]],
    keys: bool,
) -> None:
    (tmp_path / "keys").write_text(line_of("mobile", OTHER_KEY))
    settings = {"api_keys_file": tmp_path / "keys"} if keys else {}
    client = serve(admin_keys_file=admin_keys, **settings).until_ready().client
    for method, path in routes:
        for headers in ({}, {"X-API-Key": OTHER_KEY}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer"}):
            response = client.request(method, url(path), headers=headers, content=b"{" * 100_000)
            assert response.status_code == 401, (method, path, headers)
            assert response.headers["www-authenticate"].startswith("Bearer")
    # An administrator may ask what everybody may.
    assert client.get("/models/shades", headers=ADMIN).json()["version"] == versions[0]


def test_a_model_is_unloaded_and_loaded(client: httpx.Client, versions: tuple[str, str]) -> None:
    assert index(client) == [("shades", versions[0], "READY", "")]
    assert call(client, "POST", "/v2/repository/models/shades/unload", {}) == {}
    response = ask(client)
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
    assert "unloaded" in response.json()["detail"]
    assert index(client) == [("shades", "", "UNAVAILABLE", "unloaded")]
    assert index(client, ready=True) == []
    assert client.get("/v2/models/shades/ready").status_code == 404
    assert "lantern_model_info{" not in client.get("/metrics").text
    assert call(client, "POST", "/v2/repository/models/shades/load") == {}
    assert ask(client).json()["version"] == versions[0]
    assert call(client, "POST", "/v2/repository/models/shades/load") == {}
    assert index(client, ready=True) == [("shades", versions[0], "READY", "")]


def test_an_unloaded_model_is_out_of_nobodys_way(
    repository: Repository, versions: tuple[str, str], serve: Serve, admin_keys: Path
) -> None:
    publish_texts(repository, "moods")
    running = serve(admin_keys_file=admin_keys, default_image_model="shades").until_ready()
    call(running.client, "POST", "/v2/repository/models/shades/unload")
    assert running.client.get("/health/ready").status_code == 200
    text = running.client.post("/predict", content=b"a good film", headers={"Content-Type": "text/plain"})
    assert text.status_code == 200
    # So it stays, whatever is published, and for whoever starts later.
    publish(repository, "shades", Always(2))
    later = serve(admin_keys_file=admin_keys).until_ready().client
    assert index(later)[1] == ("shades", "", "UNAVAILABLE", "unloaded")
    assert ask(later).status_code == 404


def test_what_was_admitted_is_answered_by_an_unloaded_model(
    versions: tuple[str, str], serve: Serve, admin_keys: Path
) -> None:
    running = serve(admin_keys_file=admin_keys).until_ready()
    executor = running.service.registry.live["shades"].batcher._executor
    begun, go_on, infer = threading.Event(), threading.Event(), executor._infer

    def slowly(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return infer(*given)

    executor._infer = slowly
    with ThreadPoolExecutor(1) as asker:
        asked = asker.submit(ask, running.client)
        assert begun.wait(10)
        call(running.client, "POST", "/v2/repository/models/shades/unload")
        go_on.set()
        assert asked.result().json()["version"] == versions[0]


def test_nothing_fails_while_a_model_is_loaded_promoted_and_rolled_back(
    client: httpx.Client, versions: tuple[str, str]
) -> None:
    older, newer = versions
    done = threading.Event()

    def ask_until_done() -> list[int]:
        statuses = []
        with httpx.Client(base_url=client.base_url, timeout=60) as own:
            while not done.is_set():
                statuses.append(ask(own).status_code)
        return statuses

    with ThreadPoolExecutor(2) as askers:
        asked = [askers.submit(ask_until_done) for _ in range(2)]
        try:
            for _ in range(5):
                told = call(client, "PUT", "/admin/models/shades/candidate", {"version": newer, "share": 0.5})
                assert (told["candidate"]["version"], told["candidate"]["live"]) == (newer, True)
                told = call(client, "POST", "/admin/models/shades/promote")
                assert (told["version"], told["candidate"]) == (newer, None)
                told = call(client, "POST", "/admin/models/shades/rollback", {"version": older})
                assert told["version"] == older
        finally:
            done.set()
        statuses = [status for each in asked for status in each.result()]
    assert set(statuses) == {200}
    assert len(statuses) > 20


def test_a_candidate_is_tried_and_stopped(client: httpx.Client, versions: tuple[str, str]) -> None:
    body = {"version": versions[1], "share": 1.0}
    call(client, "PUT", "/admin/models/shades/candidate", body)
    assert ask(client).json()["version"] == versions[1]
    told = call(client, "DELETE", "/admin/models/shades/candidate")
    assert (told["candidate"], ask(client).json()["version"]) == (None, versions[0])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "candidate", {"version": "20200101.1", "share": 0.1}, 404, "no version"),
        ("PUT", "candidate", {"version": "20200101.1", "share": 2}, 422, "share"),
        ("PUT", "candidate", {"version": "20200101.1", "share": "0.1"}, 422, "share"),
        ("PUT", "candidate", {"version": "20200101.1", "shadow": True}, 422, "shadow"),
        ("PUT", "candidate", {"version": "20200101.1", "share": 0.6, "shadow": 0.6}, 422, "over 1 together"),
        ("PUT", "candidate", {}, 422, "version"),
        ("PUT", "candidate", [], 422, "body"),
        ("PUT", "candidate", {"version": "../x"}, 422, "version"),
        ("DELETE", "candidate", None, 409, "no version of shades is tried"),
        ("POST", "promote", None, 409, "no version of shades is tried"),
        ("POST", "rollback", {"version": "20200101.1"}, 404, "no version"),
        ("POST", "rollback", {"versions": "20200101.1"}, 422, "version"),
    ],
)
def test_what_cannot_be_done_says_why_and_changes_nothing(
    client: httpx.Client, versions: tuple[str, str], method: str, path: str, body: Any, status: int, said: str
) -> None:
    problem = call(client, method, f"/admin/models/shades/{path}", body, status)
    assert said in problem["detail"]
    assert client.get("/models/shades").json()["version"] == versions[0]
    assert client.get("/models/shades").json()["candidate"] is None


def test_a_path_of_several_methods_names_them_all(client: httpx.Client) -> None:
    for path, taken in (("/admin/models/shades/candidate", "PUT, DELETE"), ("/health/live", "GET, HEAD")):
        response = client.post(path, headers=ADMIN)
        assert (response.status_code, response.headers["allow"]) == (405, taken)


@pytest.mark.parametrize("ready", [0, "true", None])
def test_an_index_is_asked_for_with_what_is_documented(client: httpx.Client, ready: object) -> None:
    assert "ready" in call(client, "POST", "/v2/repository/index", {"ready": ready}, 400)["error"]


def test_an_unloaded_model_is_rolled_back_at_once_and_loaded_so(
    client: httpx.Client, versions: tuple[str, str]
) -> None:
    call(client, "POST", "/v2/repository/models/shades/unload")
    start_s = time.monotonic()
    told = call(client, "POST", "/admin/models/shades/rollback", {"version": versions[1]})
    assert (told["ready"], told["version"]) == (False, None)
    assert time.monotonic() - start_s < 5
    call(client, "POST", "/v2/repository/models/shades/load")
    assert ask(client).json()["version"] == versions[1]


def test_administrators_who_differ_are_all_answered_at_once(
    client: httpx.Client, versions: tuple[str, str]
) -> None:
    """Whoever's change another's took the place of is told so: 409, and under /v2 400."""
    rollbacks = [("/admin/models/shades/rollback", {"version": version}) for version in versions]
    others = [(f"/v2/repository/models/shades/{what}", None) for what in ("load", "unload")]
    start_s = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(client.post, path, json=body, headers=ADMIN) for path, body in (rollbacks + others) * 15
        ]
        answers = [each.result() for each in asked]
    # It is the patience for what takes effect only later.
    assert time.monotonic() - start_s < 30
    assert {answer.status_code for answer in answers} <= {200, 400, 409}
    assert all("meanwhile" in answer.text for answer in answers if answer.status_code != 200)
    call(client, "POST", "/v2/repository/models/shades/load")
    assert ask(client).json()["version"] in versions


def hold_loads(running: Running, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have every load wait; return what is set once one has begun, and what lets them go on."""
    loader, begun, go_on = running.service.reloader._loader, threading.Event(), threading.Event()
    load = loader._load

    def load_later(bundle: Bundle) -> LoadedModel:
        begun.set()
        assert go_on.wait(60)
        return load(bundle)

    monkeypatch.setattr(loader, "_load", load_later)
    return begun, go_on


def test_an_administrator_waits_for_no_load_that_is_not_needed(
    repository: Repository,
    versions: tuple[str, str],
    serve: Serve,
    admin_keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = versions
    publish(repository, "others")
    repository.set_candidate("shades", second, 1.0)
    running = serve(admin_keys_file=admin_keys, versions="latest:2", request_timeout_s=20).until_ready()
    client = running.client
    until(lambda: ask(client).json()["version"] == second)
    begun, go_on = hold_loads(running, monkeypatch)
    publish(repository, "others")
    assert begun.wait(60)
    told = call(client, "PUT", "/admin/models/shades/candidate", {"version": second, "share": 0.0})
    assert told["candidate"]["live"]
    assert ask(client).json()["version"] == first
    assert client.delete("/admin/models/shades/candidate", headers=ADMIN).status_code == 200
    assert ask(client).json()["version"] == first
    call(client, "POST", "/admin/models/shades/rollback", {"version": second})
    assert ask(client).json()["version"] == second
    call(client, "POST", "/v2/repository/models/shades/unload")
    assert ask(client).status_code == 404
    go_on.set()
    call(client, "POST", "/v2/repository/models/shades/load")
    assert ask(client).json()["version"] == second


def test_a_rollback_that_is_overtaken_while_others_are_waited_for_says_so(
    repository: Repository, versions: tuple[str, str], serve: Serve, admin_keys: Path
) -> None:
    serving, other = versions
    running = serve(admin_keys_file=admin_keys, request_timeout_s=20).until_ready()
    reloader = running.service.reloader
    served = repository.current("shades")
    # As of several worker processes, of which the others never are so far.
    reloader._consent = Mock(served=lambda _: served)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            running.client.post, "/admin/models/shades/rollback", json={"version": other}, headers=ADMIN
        )
        until(lambda: "shades" in reloader._held)
        call(running.client, "POST", "/admin/models/shades/rollback", {"version": serving})
        answer = first.result()
    assert answer.status_code == 409
    assert "meanwhile" in answer.text
    assert not running.service.administration._looks


@pytest.mark.parametrize("name", ["nobody", "NO", "..%2Fshades"])
def test_a_model_that_is_not_there_is_not_found(client: httpx.Client, name: str) -> None:
    for what in ("load", "unload"):
        assert "error" in call(client, "POST", f"/v2/repository/models/{name}/{what}", {}, 404)
    for what in ("promote", "rollback"):
        call(client, "POST", f"/admin/models/{name}/{what}", {"version": "20200101.1"}, 404)


@pytest.mark.parametrize(
    "body", [{"parameters": {"config": "{}"}}, {"parameters": {"file:1/model.pt": "x"}}, {"parameters": 1}]
)
def test_a_model_is_loaded_as_its_bundle_says_or_not(client: httpx.Client, body: dict[str, Any]) -> None:
    assert "parameters" in call(client, "POST", "/v2/repository/models/shades/load", body, 400)["error"]


def test_a_model_that_cannot_be_loaded_says_why(
    client: httpx.Client, repository: Repository, versions: tuple[str, str]
) -> None:
    call(client, "POST", "/v2/repository/models/shades/unload")
    (repository.root / "shades" / versions[0] / "model.ts.pt").write_bytes(b"damaged")
    error = call(client, "POST", "/v2/repository/models/shades/load", None, 400)["error"]
    assert "FileCorrupt" in error
    ((name, version, state, reason),) = index(client)
    assert (name, version, state) == ("shades", versions[0], "UNAVAILABLE")
    assert "FileCorrupt" in reason


def publish_unloadable(repository: Repository) -> str:
    """A version that is whole, and answers its golden example otherwise than it says."""
    with repository.staging("shades") as staging:
        golden = (GoldenExample(file="golden/0.png", scores=(0.0, 0.0, 1.0)),)
        stage(staging, "shades", Always(1), golden=golden)
        return repository.publish("shades", staging, current=False).manifest.version


def files(repository: Repository) -> list[bytes | None]:
    places = [repository.root / "shades" / name for name in ("CURRENT", "CANDIDATE")]
    return [place.read_bytes() if place.exists() else None for place in places]


@pytest.mark.parametrize("tried", [False, True])
@pytest.mark.parametrize(("method", "path"), [("PUT", "candidate"), ("POST", "rollback")])
def test_a_version_that_cannot_be_loaded_changes_nothing(
    client: httpx.Client,
    repository: Repository,
    versions: tuple[str, str],
    method: str,
    path: str,
    tried: bool,
) -> None:
    if tried:
        repository.set_candidate("shades", versions[1], 0.25, 0.5)
    bad, before = publish_unloadable(repository), files(repository)
    body: dict[str, Any] = {"version": bad} | ({"share": 0.1} if path == "candidate" else {})
    detail = call(client, method, f"/admin/models/shades/{path}", body, 409)["detail"]
    assert f"{bad} could not be loaded: GoldenMismatch" in detail
    assert detail.endswith("; nothing is changed")
    assert files(repository) == before
    until(lambda: (client.get("/models/shades").json()["candidate"] is not None) == tried)
    assert client.get("/models/shades").json()["version"] == versions[0]


def test_a_candidate_that_cannot_be_loaded_is_not_promoted(
    client: httpx.Client, repository: Repository, versions: tuple[str, str]
) -> None:
    bad = publish_unloadable(repository)
    repository.set_candidate("shades", bad, 0.1)
    before = files(repository)
    until(lambda: bool(client.get("/models/shades").json()["refused_versions"]))
    assert "nothing is changed" in call(client, "POST", "/admin/models/shades/promote", None, 409)["detail"]
    assert files(repository) == before
    assert repository.current("shades").version == versions[0]


def test_one_that_turns_out_later_to_be_of_no_use_is_taken_back_too(
    repository: Repository,
    versions: tuple[str, str],
    serve: Serve,
    admin_keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert versions
    running = serve(admin_keys_file=admin_keys, request_timeout_s=1).until_ready()
    bad, before = publish_unloadable(repository), files(repository)
    _, go_on = hold_loads(running, monkeypatch)
    problem = call(running.client, "POST", "/admin/models/shades/rollback", {"version": bad}, 503)
    assert problem["code"] == "model_not_ready"
    assert repository.current("shades").version == bad
    go_on.set()
    until(lambda: files(repository) == before)


def test_what_somebody_else_changed_since_is_not_taken_back(
    repository: Repository, versions: tuple[str, str]
) -> None:
    change = repository.set_candidate("shades", versions[1], 0.1)
    repository.set_candidate("shades", versions[1], 0.2)
    assert not repository.take_back("shades", change)
    candidate = repository.candidate("shades")
    assert candidate is not None
    assert candidate.share == 0.2


def test_a_version_that_serves_and_is_gone_stands_in_the_index_once(
    client: httpx.Client, repository: Repository, versions: tuple[str, str]
) -> None:
    (repository.root / "shades" / versions[0]).rename(repository.root / "gone")
    until(lambda: index(client)[0][3] != "")
    ((name, version, state, reason),) = index(client)
    assert (name, version, state) == ("shades", versions[0], "READY")
    assert "VersionNotFound" in reason


def test_the_server_says_that_models_may_be_loaded(client: httpx.Client, shades: Repository, serve: Serve) -> None:
    assert "model_repository" in client.get("/v2").json()["extensions"]
    assert "model_repository" not in serve().until_ready().client.get("/v2").json()["extensions"]


@pytest.mark.parametrize("body", [b'{"x": [' + b"[0]," * 60_000 + b"0]}", b"{" + b'"1":0,' * 101_000 + b'"1":0}'])
def test_json_of_more_values_than_anyone_needs_is_refused_unread(client: httpx.Client, body: bytes) -> None:
    response = client.put("/admin/models/shades/candidate", content=body, headers=ADMIN)
    assert response.status_code == 422
    assert "values" in response.json()["detail"]


def test_a_directory_that_cannot_be_written_says_so(
    client: httpx.Client, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a file system that is mounted for reading only has it, also for root.
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("models.repository.open_mark", read_only)
    error = call(client, "POST", "/v2/repository/models/shades/unload", None, 400)["error"]
    assert "cannot be changed: Read-only file system" in error
    assert ask(client).status_code == 200


def test_every_worker_process_is_told_where_none_looks_by_itself(
    repository: Repository, versions: tuple[str, str], admin_keys: Path
) -> None:
    older, newer = versions
    with process(repository.root, workers=2, reload_interval_s=0, admin_keys_file=admin_keys) as service:
        service.until_ready()
        clients = [httpx.Client(base_url=service.client.base_url, timeout=60) for _ in range(4)]

        def all_answer(wanted: object) -> bool:
            return {ask(client).json().get("version") for client in clients} == {wanted}

        try:
            assert all_answer(older)
            call(clients[0], "PUT", "/admin/models/shades/candidate", {"version": newer, "share": 1.0})
            until(lambda: all_answer(newer))
            call(clients[0], "DELETE", "/admin/models/shades/candidate")
            until(lambda: all_answer(older))
            call(clients[0], "POST", "/admin/models/shades/rollback", {"version": newer})
            until(lambda: all_answer(newer))
            call(clients[0], "POST", "/v2/repository/models/shades/unload")
            until(lambda: {ask(client).status_code for client in clients} == {404})
        finally:
            for client in clients:
                client.close()


def test_every_worker_process_follows(repository: Repository, versions: tuple[str, str], admin_keys: Path) -> None:
    older, newer = versions
    with process(repository.root, workers=2, reload_interval_s=0.05, admin_keys_file=admin_keys) as service:
        service.until_ready()
        clients = [httpx.Client(base_url=service.client.base_url, timeout=60) for _ in range(4)]

        def all_answer(wanted: object) -> bool:
            return {ask(client).json().get("version") for client in clients} == {wanted}

        try:
            until(lambda: all_answer(older))
            call(clients[0], "POST", "/v2/repository/models/shades/unload")
            until(lambda: all_answer(None))
            call(clients[0], "POST", "/v2/repository/models/shades/load")
            until(lambda: all_answer(older))
            call(clients[0], "POST", "/admin/models/shades/rollback", {"version": newer})
            until(lambda: all_answer(newer))
        finally:
            for client in clients:
                client.close()


def test_a_model_that_was_unloaded_comes_back_as_what_is_current_then(
    repository: Repository, versions: tuple[str, str], admin_keys: Path
) -> None:
    older, newer = versions
    repository.rollback("shades", newer)
    with process(repository.root, workers=2, reload_interval_s=0.05, admin_keys_file=admin_keys) as service:
        client = service.until_ready().client
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            call(client, "POST", "/v2/repository/models/shades/unload")
            until(lambda: {ask(each).status_code for each in (client, other)} == {404})
            repository.rollback("shades", older)
            # The one before is not even there any more.
            shutil.rmtree(repository.root / "shades" / newer)
            call(client, "POST", "/v2/repository/models/shades/load")
            assert ask(client).json()["version"] == older
            until(lambda: ask(other).json().get("version") == older)


def test_who_changes_a_model_is_not_waited_for_without_end(client: httpx.Client, repository: Repository) -> None:
    with locked(repository.root / "shades/.lock", None):
        problem = call(client, "DELETE", "/admin/models/shades/candidate", None, 409)
    assert "somebody else changes this model" in problem["detail"]


def test_who_publishes_is_not_waited_for(
    client: httpx.Client, repository: Repository, versions: tuple[str, str]
) -> None:
    """A training holds it for minutes, and a bad version must go at once."""
    path, tried = "/admin/models/shades", {"version": versions[1], "share": 1.0}
    with repository.staging("shades") as staging:
        call(client, "PUT", f"{path}/candidate", tried)
        call(client, "DELETE", f"{path}/candidate")
        call(client, "PUT", f"{path}/candidate", tried)
        call(client, "POST", f"{path}/promote")
        assert ask(client).json()["version"] == versions[1]
        call(client, "POST", f"{path}/rollback", {"version": versions[0]})
        assert ask(client).json()["version"] == versions[0]
        stage(staging, "shades", Always(2))
        newest = repository.publish("shades", staging).manifest.version
    until(lambda: ask(client).json()["version"] == newest)


def test_a_model_that_was_repaired_is_loaded_at_once(
    client: httpx.Client, repository: Repository, versions: tuple[str, str]
) -> None:
    file = repository.root / "shades" / versions[0] / "model.ts.pt"
    whole = file.read_bytes()
    call(client, "POST", "/v2/repository/models/shades/unload")
    file.write_bytes(b"damaged")
    call(client, "POST", "/v2/repository/models/shades/load", None, 400)
    file.write_bytes(whole)
    call(client, "POST", "/v2/repository/models/shades/load")
    assert ask(client).status_code == 200


def test_a_service_of_nothing_but_unloaded_models_can_be_asked(client: httpx.Client) -> None:
    call(client, "POST", "/v2/repository/models/shades/unload")
    assert client.get("/health/ready").status_code == 200


@pytest.fixture
def triton(client: httpx.Client) -> Iterator[tritonclient.http.InferenceServerClient]:
    address = f"{client.base_url.host}:{client.base_url.port}"
    with tritonclient.http.InferenceServerClient(address) as own:
        yield own


def test_triton_administers(triton: tritonclient.http.InferenceServerClient, versions: tuple[str, str]) -> None:
    (found,) = triton.get_model_repository_index(headers=ADMIN)
    assert (found["name"], found["version"], found["state"]) == ("shades", versions[0], "READY")
    triton.unload_model("shades", headers=ADMIN)
    assert not triton.is_model_ready("shades")
    triton.load_model("shades", headers=ADMIN)
    assert triton.is_model_ready("shades")
    with pytest.raises(InferenceServerException, match="administrator"):
        triton.unload_model("shades")


def test_who_did_what_is_logged(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        call(client, "POST", "/v2/repository/models/shades/unload")
    assert "operator had shades: unload" in caplog.text


def test_it_is_documented(client: httpx.Client, routes: list[tuple[str, str]]) -> None:
    document = client.get("/openapi.json").json()
    for method, path in routes:
        operation = document["paths"][path][method.lower()]
        assert operation["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/predict"]["post"].get("security") is None
    for name in ("CandidateRequest", "RollbackRequest", "IndexRequest", "LoadRequest"):
        assert name in document["components"]["schemas"]
