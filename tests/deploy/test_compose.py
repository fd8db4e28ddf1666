"""The compose files and the Dockerfile: valid, and true to what the service needs."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app import server
from app.processes.supervisor import LEAVE_WITHIN_S
from app.service import LAST_WORK_S
from app.settings import Settings, environment_name
from tests.servers import ROOT

COMPOSE_FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
# The last docker-compose in Python carries the Compose specification's JSON schema.
SCHEMA_WHEEL = "docker-compose==1.29.2"
SCHEMA_WHEEL_SHA256 = "8d5589373b35c8d3b1c8c1182c6e4a4ff14bffa3dd0b605fcd08f73c94cef809"


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("schema")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory)]
    subprocess.run([*command, SCHEMA_WHEEL], check=True)
    (wheel,) = directory.glob("*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SCHEMA_WHEEL_SHA256
    with zipfile.ZipFile(wheel) as archive:
        loaded: dict[str, Any] = json.loads(archive.read("compose/config/compose_spec.json"))
    return loaded


def compose(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_a_compose_file_is_valid_by_the_specification(name: str, schema: dict[str, Any]) -> None:
    jsonschema.Draft201909Validator(schema).validate(compose(name))


def test_the_schema_refuses_what_is_wrong(schema: dict[str, Any]) -> None:
    wrong = compose("docker-compose.yml")
    wrong["services"]["lantern"]["prots"] = ["8000:8000"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft201909Validator(schema).validate(wrong)


def test_the_gpu_file_only_adds_to_services_that_there_are() -> None:
    assert set(compose("docker-compose.gpu.yml")["services"]) <= set(compose("docker-compose.yml")["services"])
    for service in compose("docker-compose.gpu.yml")["services"].values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (service["runtime"], device["driver"], device["capabilities"]) == ("nvidia", "nvidia", ["gpu"])


def test_only_the_training_profile_trains() -> None:
    services = compose("docker-compose.yml")["services"]
    assert services["training"]["profiles"] == ["training"]
    assert "profiles" not in services["lantern"]


def test_training_and_serving_share_the_models_and_only_training_writes() -> None:
    services = compose("docker-compose.yml")["services"]
    shared = "./models/artifacts:/srv/lantern/models/artifacts"
    assert shared in services["training"]["volumes"]
    assert services["lantern"]["volumes"] == [f"{shared}:ro"]


def test_the_stop_grace_fits_the_drain() -> None:
    serving = compose("docker-compose.yml")["services"]["lantern"]
    grace_s = int(serving["stop_grace_period"].removesuffix("s"))
    environment = serving["environment"]
    drain_s = float(environment["LANTERN_DRAIN_GRACE_S"]) + float(environment["LANTERN_DRAIN_TIMEOUT_S"])
    assert grace_s > drain_s + server.LAST_BYTES_S + LAST_WORK_S + server.LAST_WORK_S
    # Where there are several workers.
    assert grace_s > drain_s + LEAVE_WITHIN_S


def test_every_variable_set_for_the_service_is_a_setting() -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    environment = compose("docker-compose.yml")["services"]["lantern"]["environment"]
    in_image = re.findall(r"\b(LANTERN_[A-Z_]+)=", (ROOT / "Dockerfile").read_text())
    assert {*environment, *in_image} <= known


def test_the_image_puts_dependencies_before_code_and_runs_as_its_own_user() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    for stage in ("serving", "training"):
        start = next(at for at, line in enumerate(lines) if line.endswith(f" AS {stage}"))
        rest = lines[start + 1 :]
        end = next((at for at, line in enumerate(rest) if line.startswith("FROM ")), len(rest))
        steps = rest[:end]
        code = next(at for at, line in enumerate(steps) if line.startswith("COPY models"))
        assert any("-dependencies" in line for line in steps[:code])
        assert "USER lantern" in steps
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert any(line.startswith("ARG BASE=") for line in lines)


def test_the_image_compiles_what_it_holds_for_the_user_who_may_not_write() -> None:
    text = (ROOT / "Dockerfile").read_text()
    tools = text.partition(" AS tools")[2].partition("FROM ")[0]
    assert "UV_COMPILE_BYTECODE=1" in tools
    for stage, folder in (("serving", "app"), ("training", "training")):
        steps = text.partition(f" AS {stage}\n")[2].partition("FROM ")[0]
        code, compiled, user = f"COPY {folder}", f"compileall -q models {folder}", "USER lantern"
        assert steps.index(code) < steps.index(compiled) < steps.index(user)


def test_the_makefile_and_the_image_install_the_same_uv() -> None:
    wanted = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert wanted
    assert f"uv=={wanted[1]}" in (ROOT / "Dockerfile").read_text()


def test_scripts_are_sound_shell() -> None:
    for script in (Path("deploy/check_image.sh"), Path(".ci/run")):
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
