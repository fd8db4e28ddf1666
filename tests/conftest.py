"""Fixtures that more than one part of the tests needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
import torch

from app.settings import Settings
from models.repository import Repository
from tests.bundles import publish
from tests.servers import Running, running

# How long an example takes is no property of the code on a machine that does other things besides.
hypothesis.settings.register_profile("lantern", deadline=None)
hypothesis.settings.load_profile("lantern")


# The models are tiny: more threads would only wait for each other, and for whatever else the machine does.
torch.set_num_threads(1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "artifacts")


@pytest.fixture
def shades(repository: Repository) -> Repository:
    """A repository with one model, `shades`, that tells dark from grey from light."""
    publish(repository, "shades")
    return repository


@pytest.fixture
def serve(repository: Repository) -> Iterator[Callable[..., Running]]:
    """Start the service over the repository, with any settings; stopped after the test."""
    with ExitStack() as stack:

        def start(**settings: object) -> Running:
            given = {
                "models_dir": repository.root,
                "port": 0,
                "reload_interval_s": 0.02,
                "cpu_threads": 1,
            } | settings
            return stack.enter_context(running(Settings.model_validate(given)))

        yield start
