"""API keys and the limit a client, over real HTTP."""

import asyncio
import hmac
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.api_keys import ApiKeys, ApiKeysInvalid, line_of, new_key
from models.repository import Repository
from tests.images import png
from tests.servers import ROOT, Process, Running, process, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
OPEN = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
GUARDED = ("/models", "/models/shades", "/metadata", "/metrics", "/docs", "/openapi.json", "/nowhere")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def add(file: Path, client: str) -> str:
    command = [sys.executable, "-m", "app.new_key", client, "--file", str(file)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_without_keys_configured_anyone_may_ask(shades: Repository, serve: Serve) -> None:
    assert serve().until_ready().client.get("/models").status_code == 200


def test_a_key_is_needed_everywhere_but_for_health(shades: Repository, serve: Serve, file: Path) -> None:
    key = add(file, "mobile")
    client = serve(api_keys_file=file).until_ready().client
    for path in OPEN:
        assert client.get(path).status_code == 200
    for path in GUARDED:
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), path
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.json()["request_id"] == response.headers["x-request-id"]
        assert client.get(path, headers={"X-API-Key": key}).status_code == (404 if path == "/nowhere" else 200)
    answer = client.post("/predict", content=png(0), headers=PNG | {"Authorization": f"bearer {key}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic {key}"},
        {"Authorization": "Bearer {key}x"},
        {"Authorization": "Bearer {hash}"},
        {"X-API-Key": "{key:.20}"},
        {"X-API-Key": "ÿ"},
    ],
)
def test_a_wrong_key_is_no_key(
    shades: Repository, serve: Serve, file: Path, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    key = add(file, "mobile")
    sha256 = file.read_text().split()[1]
    sent = [(name, value.format(key=key, hash=sha256)) for name, value in (PNG | headers).items()]
    encoded = httpx.Headers(sent, encoding="latin-1")
    response = serve(api_keys_file=file).client.post("/predict", content=png(0), headers=encoded)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert key not in response.text + caplog.text


def test_keys_are_rotated_while_serving(
    shades: Repository, serve: Serve, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = add(file, "mobile")
    client = serve(api_keys_file=file).until_ready().client

    def works(key: str) -> bool:
        return client.get("/models", headers={"X-API-Key": key}).status_code == 200

    new = add(file, "mobile")
    until(lambda: works(new))
    assert works(old)
    file.write_text(file.read_text().splitlines()[-1])
    until(lambda: not works(old))
    assert works(new)
    file.unlink()
    until(lambda: "cannot be read" in caplog.text)
    assert works(new)
    file.write_text("nonsense\n")
    until(lambda: "line 1" in caplog.text)
    assert works(new)
    file.write_text(line_of("other", old))
    until(lambda: works(old))
    assert not works(new)


def test_the_keys_of_administrators_are_rotated_while_serving(
    shades: Repository, serve: Serve, file: Path
) -> None:
    old = add(file, "operator")
    client = serve(admin_keys_file=file).until_ready().client

    def works(key: str) -> bool:
        return client.post("/v2/repository/index", headers={"X-API-Key": key}).status_code == 200

    assert works(old)
    new = add(file, "operator")
    until(lambda: works(new))
    assert works(old)
    file.write_text(line_of("operator", new))
    until(lambda: not works(old))
    assert works(new)


def workers_that_answered(service: Process, request_id: str, status: int) -> set[int]:
    """Those that answered a request of that id so, as the log says."""
    lines = [json.loads(line) for line in list(service.lines)]
    wanted = (request_id, status)
    return {line["worker"] for line in lines if (line.get("request_id"), line.get("status")) == wanted}


def test_keys_are_rotated_in_every_worker_process(shades: Repository, file: Path) -> None:
    keys = {"old": add(file, "mobile"), "new": new_key()}
    with ExitStack() as stack:
        service = stack.enter_context(process(shades.root, workers=2, reload_interval_s=0.05, api_keys_file=file))
        url = service.until_ready().client.base_url
        # Each keeps its connection, and these are spread evenly.
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=60)) for _ in range(4)]

        def answers(which: str) -> set[int]:
            headers = {"X-API-Key": keys[which], "X-Request-ID": which}
            return {client.get("/models", headers=headers).status_code for client in clients}

        def both_workers_gave(which: str, status: int) -> bool:
            return len(workers_that_answered(service, which, status)) == 2

        assert (answers("old"), answers("new")) == ({200}, {401})
        file.write_text("\n".join(line_of("mobile", key) for key in keys.values()))
        until(lambda: answers("new") == {200})
        assert answers("old") == {200}
        file.write_text(line_of("mobile", keys["new"]))
        until(lambda: answers("old") == {401})
        assert answers("new") == {200}
        until(lambda: both_workers_gave("new", 200) and both_workers_gave("old", 401))


@pytest.mark.parametrize(
    ("setting", "method", "path"),
    [("api_keys_file", "GET", "/models"), ("admin_keys_file", "POST", "/v2/repository/index")],
)
def test_every_key_is_compared_in_constant_time_whichever_matches(
    shades: Repository,
    serve: Serve,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    method: str,
    path: str,
) -> None:
    keys = [new_key() for _ in range(3)]
    file.write_text("\n".join(line_of("mobile", key) for key in keys))
    client = serve(**{setting: file}).until_ready().client
    compare, compared = hmac.compare_digest, 0

    def counted(known: bytes, sent: bytes) -> bool:
        nonlocal compared
        compared += 1
        return compare(known, sent)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for key, status in ((keys[0], 200), (keys[-1], 200), (new_key(), 401)):
        compared = 0
        response = client.request(method, path, headers={"X-API-Key": key})
        assert (response.status_code, compared) == (status, len(keys))


def test_a_file_that_comes_back_as_it_was_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    add(file, "mobile")
    content = file.read_bytes()
    keys = ApiKeys(file)
    for broken in (b"", b"", content):
        file.write_bytes(broken)
        keys.reread()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.anyio
async def test_the_watch_of_the_keys_outlives_whatever_it_meets(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(file, "mobile")
    keys, loop, looked_again = ApiKeys(file), asyncio.get_running_loop(), asyncio.Event()
    looks = iter([RuntimeError("can't start new thread"), None])

    def reread() -> None:
        if (trouble := next(looks, None)) is not None:
            raise trouble
        loop.call_soon_threadsafe(looked_again.set)

    monkeypatch.setattr(keys, "reread", reread)
    watch = asyncio.create_task(keys.watch(0.001))
    await asyncio.wait_for(looked_again.wait(), 30)
    watch.cancel()
    assert "looking for changed API keys failed" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no key"),
        ("# only a comment\n\n", "holds no key"),
        ("mobile " + 64 * "a" + "\nsecret-in-the-clear\n", "line 2"),
        ("mobile " + 63 * "a", "line 1"),
    ],
)
def test_a_file_without_usable_keys_stops_the_start(file: Path, content: str | None, expected: str) -> None:
    if content is not None:
        file.write_text(content)
    command = [sys.executable, "-m", "app", "--api-keys-file", str(file), "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("the service did not start: ")
    assert expected in message
    assert "secret-in-the-clear" not in done.stderr


def test_keys_are_written_for_the_owner_only_and_below_what_is_there(file: Path) -> None:
    first = add(file, "a")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text().rstrip("\n") + "  # whose it is")
    second = add(file, "b")
    keys = ApiKeys(file)
    assert [keys.client_of(key.encode()) for key in (first, second, new_key())] == ["a", "b", None]
    assert first not in file.read_text()


def test_a_client_must_have_a_name_that_fits_a_line(file: Path) -> None:
    with pytest.raises(ApiKeysInvalid, match="no client's name"):
        line_of("two words", new_key())
    command = [sys.executable, "-m", "app.new_key", "two words", "--file", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, file.exists()) == (1, "", False)
    assert "no key was made" in done.stderr


def test_without_a_key_health_says_that_a_version_is_refused_and_not_why(
    shades: Repository, serve: Serve, file: Path
) -> None:
    key = {"X-API-Key": add(file, "mobile")}
    client = serve(api_keys_file=file).until_ready().client
    (shades.root / "shades/CURRENT").write_text("damaged")
    until(lambda: client.get("/health/ready").json()["models"]["shades"]["refused"] is not None)
    refused = client.get("/health/ready").json()["models"]["shades"]["refused"]
    assert refused["error"] == "CurrentInvalid"
    assert "CURRENT" not in refused["detail"]
    assert "CURRENT" in client.get("/models/shades", headers=key).json()["refused"]["detail"]


def test_without_a_key_health_does_not_say_where_the_models_are(tmp_path: Path, serve: Serve, file: Path) -> None:
    add(file, "mobile")
    root = tmp_path / "no-directory"
    root.write_text("")
    for settings in ({}, {"api_keys_file": file}):
        client = serve(models_dir=root, **settings).client
        until(partial(_says, client, "cannot be read"))
        assert _says(client, str(root)) == (settings == {})


def _says(client: httpx.Client, text: str) -> bool:
    return text in client.get("/health/ready").text


def test_a_client_over_its_rate_is_refused_and_told_when_to_come_back(shades: Repository, serve: Serve) -> None:
    client = serve(rate_limit_per_s=0.1, rate_limit_burst=2).until_ready().client
    for _ in range(2):
        assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
    response = client.post("/predict", content=png(0), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert 9 <= int(response.headers["retry-after"]) <= 10
    for path in OPEN:
        assert client.get(path).status_code == 200


def forwarded(client: httpx.Client, *hosts: str) -> list[int]:
    return [client.get("/models", headers={"X-Forwarded-For": host}).status_code for host in hosts]


def test_whom_a_request_was_forwarded_for_is_believed_of_nobody_unnamed(shades: Repository, serve: Serve) -> None:
    client = serve(rate_limit_per_s=0.01, rate_limit_burst=1).until_ready().client
    assert forwarded(client, "192.0.2.1", "192.0.2.2") == [200, 429]


def test_a_proxy_that_is_named_tells_clients_apart(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    client = serve(rate_limit_per_s=0.01, rate_limit_burst=1).until_ready().client
    assert forwarded(client, "192.0.2.1", "192.0.2.2", "192.0.2.1") == [200, 200, 429]
    # IPv4 in the clothes of IPv6 is the same client; of IPv6 a whole network is one.
    assert forwarded(client, "::ffff:192.0.2.1", "::ffff:192.0.2.3") == [429, 200]
    assert forwarded(client, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1") == [200, 429, 200]
    # Whatever is no address is one client more.
    assert forwarded(client, "a:b", "nobody", "x" * 10_000, "1:2:3") == [200, 429, 429, 429]


def test_with_keys_no_address_is_looked_at(
    shades: Repository, serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    add(file, "mobile")
    client = serve(api_keys_file=file).until_ready().client
    assert forwarded(client, "a:b") == [401]


def test_with_keys_the_limit_is_a_key_holders_and_not_an_addresss(
    shades: Repository, serve: Serve, file: Path
) -> None:
    mobile, web, spare = add(file, "mobile"), add(file, "web"), add(file, "mobile")
    client = serve(api_keys_file=file, rate_limit_per_s=0.01, rate_limit_burst=1).until_ready().client
    statuses = [client.get("/models", headers={"X-API-Key": key}).status_code for key in (mobile, web, spare)]
    assert statuses == [200, 200, 429]


def test_who_has_no_valid_key_is_limited_by_address_and_holders_are_not(
    shades: Repository, serve: Serve, file: Path
) -> None:
    key = add(file, "mobile")
    client = serve(api_keys_file=file, rate_limit_per_s=0.01, rate_limit_burst=2).until_ready().client
    guesses: tuple[dict[str, str], ...] = (
        {},
        {"X-API-Key": "lantern_guessed"},
        {"Authorization": "Bearer another"},
    )
    assert [client.get("/models", headers=guess).status_code for guess in guesses] == [401, 401, 429]
    assert client.get("/models", headers={"X-API-Key": key}).status_code == 200


def test_the_log_names_the_client_and_never_its_key(shades: Repository, file: Path) -> None:
    key = add(file, "mobile")
    with process(shades.root, api_keys_file=file) as service:
        service.until_ready().client.get("/models", headers={"Authorization": f"Bearer {key}"})
        until(lambda: any('"path": "/models"' in line for line in service.lines))
        service.popen.terminate()
        service.wait()
        log = "\n".join(service.lines)
    assert '"caller": "mobile"' in log
    assert key not in log


def test_the_document_says_that_a_key_is_needed(shades: Repository, serve: Serve, file: Path) -> None:
    key = add(file, "mobile")
    document = serve(api_keys_file=file).client.get("/openapi.json", headers={"X-API-Key": key}).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in OPEN)
            assert ({"401", "429"} <= set(operation["responses"])) == (path not in OPEN)
