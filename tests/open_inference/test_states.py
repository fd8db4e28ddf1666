"""What the protocol's probes say of this service before it has a model, and while it stops: seen from outside."""

import signal
from collections.abc import Callable

import httpx
import pytest

from models.repository import Repository
from tests.bundles import publish
from tests.open_inference.target import Target, of_this_service, outputs
from tests.servers import Running, process, until

pytestmark = of_this_service


@pytest.fixture(autouse=True)
def unharmed() -> None:
    """Other servers than the suite's are asked here."""


def not_ready(asked: Target, path: str) -> str:
    """Why something is not ready."""
    response = asked.client.get(path)
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    return asked.error(response)


def is_ready(client: httpx.Client, path: str) -> bool:
    return client.get(path).status_code == 200


def test_a_server_is_live_before_its_first_model_and_ready_with_it(
    repository: Repository, serve: Callable[..., Running]
) -> None:
    asked = Target(serve().client, "shades")
    model = "/v2/models/shades/ready"
    # Until it has looked, it cannot know that there is none.
    until(lambda: "python -m training" in not_ready(asked, "/v2/health/ready"))
    assert asked.client.get("/v2/health/live").json() == {"live": True}
    assert "no model" in asked.refused(asked.client.get(model), 404)
    assert "no model" in asked.refused(asked.infer({}), 404)
    publish(repository, "shades")
    until(lambda: is_ready(asked.client, model))
    assert asked.client.get("/v2/health/ready").json() == {"ready": True}
    assert outputs(asked.infer(asked.request()))


def test_a_server_that_is_told_to_stop_is_unready_and_still_answers(shades: Repository) -> None:
    with process(shades.root, drain_grace_s=3000) as service:
        asked = Target(service.until_ready().client, "shades")
        assert is_ready(asked.client, "/v2/health/ready")
        assert is_ready(asked.client, "/v2/models/shades/ready")
        service.popen.send_signal(signal.SIGTERM)
        until(lambda: not is_ready(asked.client, "/v2/health/ready"))
        for path in ("/v2/health/ready", "/v2/models/shades/ready"):
            assert "about to stop" in not_ready(asked, path)
        assert asked.client.get("/v2/health/live").json() == {"live": True}
        assert outputs(asked.infer(asked.request()))
