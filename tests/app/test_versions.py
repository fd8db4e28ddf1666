"""Several versions of a model live at once: addressed, loaded and drained as LANTERN_VERSIONS says."""

import threading
from collections.abc import Callable

import httpx
import pytest

from app.version_policy import VersionPolicy
from models.bundle import Bundle
from models.current import Current
from models.repository import Repository
from tests.bundles import Always, publish
from tests.images import png
from tests.open_inference.target import Target
from tests.servers import Running, process, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}


def published(repository: Repository, index: int) -> str:
    """Publish a version that always gives the label of that index."""
    return publish(repository, "shades", Always(index)).manifest.version


def ask(client: httpx.Client, version: str | None = None) -> httpx.Response:
    where = "/models/shades/predict" if version is None else f"/models/shades/versions/{version}/predict"
    return client.post(where, content=png(0), headers=PNG)


def label(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    found: str = response.json()["predictions"][0]["label"]
    return found


def live(client: httpx.Client) -> list[str]:
    found: list[str] = client.get("/models/shades").json()["live_versions"]
    return found


def test_without_asking_only_the_current_version_is_live(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    client = serve().until_ready().client
    assert live(client) == [second]
    response = ask(client, first)
    assert (response.status_code, response.json()["code"]) == (404, "version_not_found")
    assert second in response.json()["detail"]


def test_the_newest_are_live_and_answer_whoever_names_them(repository: Repository, serve: Serve) -> None:
    _, second, third = (published(repository, index) for index in range(3))
    running = serve(versions="latest:2").until_ready()
    until(lambda: live(running.client) == [third, second])
    assert label(ask(running.client)) == label(ask(running.client, third)) == "light"
    response = ask(running.client, second)
    assert (label(response), response.json()["version"]) == ("grey", second)
    asked = Target(running.client, "shades")
    assert asked.metadata["versions"] == [second, third]
    by_protocol = asked.infer(asked.request(), f"/versions/{second}").json()
    assert (by_protocol["model_version"], by_protocol["outputs"][0]["data"]) == (second, [0.0, 1.0, 0.0])


def test_a_version_that_is_published_pushes_out_the_oldest(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    running = serve(versions="latest:2").until_ready()
    until(lambda: live(running.client) == [second, first])
    oldest, kept = (running.service.registry.resolve("shades", version) for version in (first, second))
    third = published(repository, 2)
    until(lambda: live(running.client) == [third, second])
    until(lambda: oldest.batcher not in running.service._workers._sources)
    # What was current stays as it is: nothing is loaded anew.
    assert running.service.registry.resolve("shades", second) is kept
    assert [label(ask(running.client, version)) for version in (second, third)] == ["grey", "light"]
    assert ask(running.client, first).status_code == 404


def test_a_rollback_to_a_live_version_takes_over_without_loading(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    running = serve(versions="latest:2").until_ready()
    until(lambda: live(running.client) == [second, first])
    kept = running.service.registry.resolve("shades", first)
    repository.rollback("shades", first)
    running.until_version("shades", first)
    assert live(running.client) == [first, second]
    assert running.service.registry.live["shades"] is kept
    assert (label(ask(running.client)), label(ask(running.client, second))) == ("dark", "grey")


def test_pinned_versions_stay_whatever_is_newer(repository: Repository, serve: Serve) -> None:
    first = published(repository, 0)
    running = serve(versions=f"shades/{first}").until_ready()
    published(repository, 1)
    third = published(repository, 2)
    until(lambda: live(running.client) == [third, first])
    assert label(ask(running.client, first)) == "dark"


def test_a_model_that_is_not_there_is_told_once(
    repository: Repository, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    first = published(repository, 0)
    running = serve(versions=f"shads/{first},shades/{first}").until_ready()
    running.until_version("shades", published(repository, 1))
    told = [message for message in caplog.messages if "LANTERN_VERSIONS" in message]
    assert told == [f"LANTERN_VERSIONS: no such model is published: shads/{first}"]


def test_a_version_that_cannot_be_loaded_is_told_and_harms_no_other(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    third = published(repository, 2)
    (repository.root / "shades" / second / "model.ts.pt").write_bytes(b"damaged")
    client = serve(versions="latest:3").until_ready().client
    until(lambda: live(client) == [third, first])
    (refused,) = client.get("/models/shades").json()["refused_versions"]
    assert (refused["version"], refused["error"]) == (second, "FileCorrupt")
    assert client.get("/models/shades").json()["refused"] is None
    response = ask(client, second)
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    assert "could not be loaded: FileCorrupt" in response.json()["detail"]
    assert label(ask(client)) == "light"


def test_a_version_that_is_still_to_come_is_no_version_that_is_not(
    repository: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = published(repository, 0), published(repository, 1)
    go_on = threading.Event()
    opened = Repository.open

    def slowly(repository: Repository, name: str, version: str | Current | None = None) -> Bundle:
        if version == first:
            assert go_on.wait(30)
        return opened(repository, name, version)

    monkeypatch.setattr(Repository, "open", slowly)
    client = serve(versions="latest:2").until_ready().client
    response = ask(client, first)
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    assert f"shades {first} is being loaded" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert ask(client, "20200101.1").status_code == 404
    go_on.set()
    until(lambda: live(client) == [second, first])
    assert label(ask(client, first)) == "dark"


def test_a_directory_that_vanishes_takes_nothing_away(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    running = serve(versions="latest:2").until_ready()
    until(lambda: live(running.client) == [second, first])
    looked, look = threading.Event(), running.service.reloader.look
    repository.root.rename(repository.root.with_name("away"))

    async def look_again() -> None:
        await look()
        looked.set()

    running.service.reloader.look = look_again  # type: ignore[method-assign]
    assert looked.wait(20)
    assert live(running.client) == [second, first]
    assert [label(ask(running.client, version)) for version in (first, second)] == ["dark", "grey"]


def test_queues_are_counted_over_all_versions(repository: Repository, serve: Serve) -> None:
    first, second = published(repository, 0), published(repository, 1)
    client = serve(versions="latest:2", queue_capacity=100).until_ready().client
    until(lambda: live(client) == [second, first])
    told = client.get("/metrics").text
    assert 'lantern_queue_capacity{model="shades"} 200.0' in told
    for version in (first, second):
        assert f'lantern_model_info{{model="shades",version="{version}"}} 1.0' in told


def test_versions_are_live_in_every_worker_process(repository: Repository) -> None:
    first, second = published(repository, 0), published(repository, 1)
    with process(repository.root, workers=2, versions="latest:2", reload_interval_s=0.05) as service:
        service.until_ready()
        clients = [httpx.Client(base_url=service.client.base_url, timeout=60) for _ in range(4)]
        try:
            for client in clients:
                until(lambda client=client: live(client) == [second, first])  # type: ignore[misc]
                assert [label(ask(client, version)) for version in (first, second)] == ["dark", "grey"]
        finally:
            for client in clients:
                client.close()


@pytest.mark.parametrize(
    "text", ["latest", "latest:0", "latest:-1", "shades", "shades/1", "a b/20261101.1", "", "all"]
)
def test_a_setting_that_names_no_versions_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none of current, latest:N and NAME/VERSION"):
        VersionPolicy.parse(text)


def test_a_policy_says_which_are_wanted() -> None:
    policy = VersionPolicy.parse("latest:2, shades/20261101.1,other/20261101.9")
    versions = ["20261101.1", "20261102.1", "20261102.9", "20261102.10"]
    assert policy.wanted("shades", versions) == {"20261101.1", "20261102.9", "20261102.10"}
    assert policy.wanted("third", versions[:1]) == {"20261101.1"}
    assert VersionPolicy.parse("current").wanted("shades", versions) == set()
