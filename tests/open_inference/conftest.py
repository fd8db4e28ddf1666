"""The server that is asked: the one that the environment names, or this service with small models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from models.repository import Repository
from tests.bundles import publish, publish_texts, publish_writer
from tests.open_inference.target import ADDRESS, PATIENCE_S, Target
from tests.servers import running

OWN_MODELS = ("shades", "moods", "echo")


@contextmanager
def own_server(root: Path) -> Iterator[httpx.Client]:
    """This service, with a model of each kind."""
    repository = Repository(root)
    publish(repository, "shades")
    publish_texts(repository, "moods")
    publish_writer(repository, "echo")
    settings = {"models_dir": root, "port": 0, "reload_interval_s": 0, "cpu_threads": 1}
    with running(Settings.model_validate(settings)) as service:
        yield service.until_ready().client


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    if ADDRESS is not None:
        with httpx.Client(base_url=ADDRESS, timeout=PATIENCE_S) as client:
            yield client
        return
    with own_server(tmp_path_factory.mktemp("artifacts")) as client:
        yield client


@pytest.fixture(params=os.environ.get("OPEN_INFERENCE_MODEL", ",".join(OWN_MODELS)).split(","))
def target(request: pytest.FixtureRequest, client: httpx.Client) -> Target:
    return Target(client, request.param, own=ADDRESS is None)


@pytest.fixture(autouse=True)
def unharmed(target: Target) -> Iterator[None]:
    """Whatever a test sent, the server answers afterwards."""
    yield
    assert target.infer(target.request()).status_code == 200
