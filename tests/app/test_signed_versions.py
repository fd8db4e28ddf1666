"""LANTERN_TRUSTED_KEYS_FILE: what none of its keys signed does not serve, and does once one of them has."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.api_keys import line_of, new_key
from models.repository import Repository
from models.signing_key import SigningKey
from tests.bundles import Always, publish, publish_signed
from tests.images import png
from tests.servers import ROOT, Running, process, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
KEY, OTHER = SigningKey.make(), SigningKey.make()


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """A file that trusts one key."""
    file = tmp_path / "trusted.pem"
    file.write_bytes(KEY.public.to_pem())
    return file


@pytest.fixture(autouse=True)
def _no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is not tried again because time passes, but only because something changed."""
    monkeypatch.setattr("app.attempts.FIRST_RETRY_S", 86_400.0)


def signed(repository: Repository, index: int = 0) -> str:
    """Publish a signed version that always gives the label of that index."""
    return publish_signed(repository, "shades", KEY, Always(index)).manifest.version


def unsigned(repository: Repository, index: int = 1) -> str:
    return publish(repository, "shades", Always(index)).manifest.version


def shades_of(client: httpx.Client) -> Any:
    return client.get("/models/shades").json()


def answered_by(client: httpx.Client) -> str:
    response = client.post("/models/shades/predict", content=png(0), headers=PNG)
    assert response.status_code == 200, response.text
    version: str = response.json()["version"]
    return version


def until_refused(client: httpx.Client, version: str, error: str) -> None:
    def refused() -> bool:
        found = shades_of(client)["refused"]
        return found is not None and (found["version"], found["error"]) == (version, error)

    until(refused)


def until_looked(repository: Repository, client: httpx.Client) -> None:
    """Wait until the service has looked at everything that was changed before."""
    # Models are looked at in the order of their names.
    version = publish_signed(repository, "zebra", KEY).manifest.version
    until(lambda: client.get("/models/zebra").json().get("version") == version)


def test_an_unsigned_version_is_refused_and_goes_live_once_it_is_signed(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    before = signed(repository)
    running = serve(trusted_keys_file=trusted).until_ready()
    version = unsigned(repository)
    until_refused(running.client, version, "SignatureMissing")
    assert "python -m training sign" in shades_of(running.client)["refused"]["detail"]
    assert answered_by(running.client) == before
    ready = running.client.get("/health/ready")
    assert (ready.status_code, ready.json()["models"]["shades"]["refused"]["version"]) == (200, version)
    repository.sign("shades", OTHER)
    until_looked(repository, running.client)
    assert answered_by(running.client) == before
    # Looked at again and again, and counted once.
    metrics = running.client.get("/metrics").text
    assert 'lantern_model_loads_total{model="shades",result="refused"} 1.0' in metrics
    repository.sign("shades", KEY)
    running.until_version("shades", version)
    assert answered_by(running.client) == version
    assert shades_of(running.client)["refused"] is None


def test_what_another_key_signed_goes_live_once_that_key_is_trusted_too(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    signed(repository)
    running = serve(trusted_keys_file=trusted).until_ready()
    version = publish_signed(repository, "shades", OTHER, Always(1)).manifest.version
    until_refused(running.client, version, "SignatureInvalid")
    trusted.write_bytes(trusted.read_bytes() + OTHER.public.to_pem())
    running.until_version("shades", version)


def test_what_a_key_signs_that_was_taken_away_is_refused_and_what_is_live_serves_on(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    before = signed(repository)
    running = serve(trusted_keys_file=trusted).until_ready()
    trusted.write_bytes(OTHER.public.to_pem())
    until_refused(running.client, signed(repository), "SignatureInvalid")
    assert answered_by(running.client) == before


def test_a_file_of_keys_that_is_damaged_meanwhile_trusts_nobody_until_it_is_mended(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    before = signed(repository)
    running = serve(trusted_keys_file=trusted).until_ready()
    good = trusted.read_bytes()
    for damage in (lambda: trusted.write_bytes(b""), trusted.unlink):
        damage()
        version = signed(repository)
        until_refused(running.client, version, "KeyFileInvalid")
        assert answered_by(running.client) == before
        trusted.write_bytes(good)
        running.until_version("shades", version)
        before = version


def test_a_service_that_starts_with_nothing_signed_serves_nothing(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    version = unsigned(repository)
    client = serve(trusted_keys_file=trusted).client
    until_refused(client, version, "SignatureMissing")
    response = client.post("/predict", content=png(0), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")


def test_versions_besides_the_current_one_are_held_to_the_same(
    repository: Repository, serve: Serve, trusted: Path
) -> None:
    tried, current = unsigned(repository), signed(repository)
    repository.set_candidate("shades", tried, 1.0)
    client = serve(trusted_keys_file=trusted, versions="latest:2").until_ready().client
    until(lambda: [each["error"] for each in shades_of(client)["refused_versions"]] == ["SignatureMissing"])
    assert answered_by(client) == current
    repository.sign("shades", KEY, tried)
    until(lambda: shades_of(client)["live_versions"] == [current, tried])
    assert answered_by(client) == tried
    assert shades_of(client)["refused_versions"] == []


def test_an_administrator_can_make_no_unsigned_version_current(
    tmp_path: Path, repository: Repository, serve: Serve, trusted: Path
) -> None:
    key = new_key()
    (tmp_path / "admins").write_text(line_of("operator", key))
    old, current = unsigned(repository), signed(repository)
    client = serve(trusted_keys_file=trusted, admin_keys_file=tmp_path / "admins").until_ready().client
    for method, path, body in (
        ("POST", "/admin/models/shades/rollback", {"version": old}),
        ("PUT", "/admin/models/shades/candidate", {"version": old, "share": 0.5}),
    ):
        response = client.request(method, path, json=body, headers={"X-API-Key": key})
        assert (response.status_code, response.json()["code"]) == (409, "refused"), response.text
        assert "manifest.sig is not there" in response.json()["detail"]
    assert repository.current("shades").version == current
    assert repository.candidate("shades") is None


def test_without_the_setting_signed_and_unsigned_versions_serve(repository: Repository, serve: Serve) -> None:
    signed(repository)
    running = serve().until_ready()
    running.until_version("shades", unsigned(repository))
    running.until_version("shades", publish_signed(repository, "shades", OTHER).manifest.version)


def test_all_worker_processes_refuse_and_swap_together(repository: Repository, trusted: Path) -> None:
    before = signed(repository)
    with process(repository.root, workers=2, reload_interval_s=0.05, trusted_keys_file=trusted) as service:
        client = service.until_ready().client
        version = unsigned(repository)
        until_refused(client, version, "SignatureMissing")
        assert answered_by(client) == before
        repository.sign("shades", KEY)
        # Each connection may be another worker's.
        until(lambda: {answered_by(service.client) for _ in range(8)} == {version})
        live = f'lantern_model_info{{model="shades",version="{version}"}} 1.0'
        until(lambda: live in client.get("/metrics").text)


def private_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "workers", "expected"),
    [
        (None, 1, "cannot be read: No such file or directory"),
        (b"", 1, "holds no public key; python -m training keygen writes one that ends in .pub"),
        (KEY.public.to_pem() + private_pem(), 1, "holds a private key"),
        (b"", 2, "holds no public key"),
    ],
)
def test_a_file_without_usable_keys_stops_the_start(
    trusted: Path, content: bytes | None, workers: int, expected: str
) -> None:
    if content is None:
        trusted.unlink()
    else:
        trusted.write_bytes(content)
    command = [sys.executable, "-m", "app", "--trusted-keys-file", str(trusted), "--port", "0"]
    done = subprocess.run(
        [*command, "--workers", str(workers)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"the service did not start: {trusted}")
    assert expected in message
    assert "Traceback" not in done.stderr
    quoted = [line for line in (content or b"").decode().splitlines() if line in done.stderr]
    assert not quoted


def test_the_trainings_own_variable_may_be_in_the_environment(repository: Repository) -> None:
    unsigned(repository)
    with process(repository.root, signing_key_file="signing.key") as service:
        service.until_ready()
