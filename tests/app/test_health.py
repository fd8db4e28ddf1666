from collections.abc import Callable

import httpx

from app.schemas import Ready
from models.repository import Repository
from tests.bundles import publish
from tests.servers import Running, until

Serve = Callable[..., Running]


def ready(running: Running) -> tuple[int, Ready]:
    response = running.client.get("/health/ready")
    return response.status_code, Ready.model_validate_json(response.content)


def test_the_process_is_live_whatever_its_models_are(serve: Serve) -> None:
    assert serve().client.get("/health/live").json() == {"status": "live"}


def test_a_probe_may_use_head(serve: Serve) -> None:
    client = serve().client
    assert [client.head(f"/health/{which}").status_code for which in ("live", "ready")] == [200, 503]


def test_ready_once_every_model_is_warm(shades: Repository, serve: Serve) -> None:
    publish(shades, "other")
    status, body = ready(serve().until_ready())
    assert (status, body.status) == (200, "ready")
    assert {name: model.ready for name, model in body.models.items()} == {"other": True, "shades": True}


def test_not_ready_without_any_model_and_says_how_to_get_one(serve: Serve) -> None:
    running = serve()
    until(lambda: running.service.registry.looked)
    status, body = ready(running)
    assert (status, body.status) == (503, "not_ready")
    assert body.detail is not None
    assert "python -m training" in body.detail


def test_not_ready_while_one_model_cannot_be_loaded(shades: Repository, serve: Serve) -> None:
    bundle = publish(shades, "broken")
    (bundle.directory / "model.ts.pt").write_bytes(b"")
    running = serve()
    until(lambda: "broken" in running.service.registry.refusals and "shades" in running.service.registry.live)
    status, body = ready(running)
    assert (status, body.status) == (503, "not_ready")
    refused = body.models["broken"].refused
    assert refused is not None
    assert (refused.error, refused.version) == ("FileCorrupt", bundle.manifest.version)
    assert body.models["shades"].ready


def test_a_bad_model_published_later_does_not_take_a_serving_instance_away(
    shades: Repository, serve: Serve
) -> None:
    running = serve().until_ready()
    (shades.root / "later").mkdir()
    (shades.root / "later/CURRENT").write_text("nonsense")
    until(lambda: "later" in running.service.registry.refusals)
    status, body = ready(running)
    assert (status, body.models["later"].ready) == (200, False)
    (shades.root / "later/CURRENT").unlink()
    until(lambda: "later" not in running.service.registry.names)
    assert running.client.get("/models/later").status_code == 404


def test_a_repository_that_cannot_be_read_is_told(repository: Repository, serve: Serve) -> None:
    repository.root.write_text("in the way")
    running = serve()
    until(lambda: running.service.registry.looked)
    status, body = ready(running)
    assert status == 503
    assert body.detail is not None
    assert "cannot be read" in body.detail


def test_not_ready_while_a_configured_default_is_missing(shades: Repository, serve: Serve) -> None:
    running = serve(default_image_model="absent")
    until(lambda: running.service.registry.looked)
    status, body = ready(running)
    assert (status, body.detail) == (503, "not live: absent")


def test_leaving_fails_readiness_but_still_answers_and_closes_connections(
    shades: Repository, serve: Serve
) -> None:
    running = serve().until_ready()
    running.service.leave()
    response = running.client.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "draining")
    assert response.headers["connection"] == "close"
    assert running.client.get("/health/live").status_code == 200


def test_refusing_answers_503_with_when_to_come_back(shades: Repository, serve: Serve) -> None:
    from tests.images import png

    running = serve().until_ready()
    running.service.refuse()
    response = running.client.post("/predict", content=png(0), headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (503, "draining")
    assert response.headers["retry-after"] == "1"


def test_a_request_id_is_given_or_taken_over_when_sane(shades: Repository, serve: Serve) -> None:
    client = serve().client
    first, second = (client.get("/health/live").headers["x-request-id"] for _ in range(2))
    assert first != second
    for sane in ("abc-1.2_3", "x" * 128):
        assert client.get("/health/live", headers={"X-Request-ID": sane}).headers["x-request-id"] == sane
    for insane in (b"", b"x" * 129, b"a b", b'"><script>', b"-x", "ü".encode()):
        response = client.get("/health/live", headers=httpx.Headers({b"X-Request-ID": insane}))
        assert len(response.headers["x-request-id"]) == 32
