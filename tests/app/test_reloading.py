"""Publishing while serving: the new version takes over, nothing fails, and a corrupt one never goes live."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.inference import LoadedModel
from app.reloading import Reloader
from models.bundle import Bundle
from models.current import Current
from models.plain_file import read_plain
from models.repository import Repository
from tests.archives import coded
from tests.bundles import Always, Shades, publish, stage
from tests.images import png
from tests.servers import PATIENCE_S, Running, until

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}


@contextmanager
def traffic(port: int, clients: int = 4) -> Iterator[list[tuple[int, str]]]:
    """Ask without a pause from several connections; yields the list of (status, version) being collected."""
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while not stop.is_set():
                response = client.post("/predict", content=png(0), headers=PNG)
                answers.append((response.status_code, response.json().get("version", response.text)))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until_more(answers: list[tuple[int, str]], count: int) -> None:
    before = len(answers)
    until(lambda: len(answers) > before + count)


def test_a_new_version_takes_over_under_load_without_a_failed_request(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    versions = [shades.current("shades").version]
    with traffic(running.port) as answers:
        until_more(answers, 20)
        for index in (0, 1, 2, 0, 1):
            version = publish(shades, "shades", Always(index)).manifest.version
            running.until_version("shades", version)
            until_more(answers, 20)
            versions.append(version)
    assert {status for status, _ in answers} == {200}
    in_order = [version for _, version in answers]
    assert {*in_order} == {*versions}


def test_a_rollback_takes_over_too(shades: Repository, serve: Serve) -> None:
    first = shades.current("shades").version
    second = publish(shades, "shades").manifest.version
    running = serve().until_ready()
    running.until_version("shades", second)
    shades.rollback("shades", first)
    running.until_version("shades", first)


def test_the_old_version_is_drained_and_asked_no_more(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    before = running.service.registry.live["shades"]
    publish(shades, "shades", Always(1))
    until(lambda: running.service.registry.live["shades"] is not before)
    until(lambda: before.batcher not in running.service._workers._sources)
    assert before.batcher.open_tickets == 0


@pytest.mark.parametrize("harm", ["flip", "remove", "extra", "half"])
def test_a_corrupt_version_is_refused_while_the_old_one_serves_on(
    shades: Repository, serve: Serve, harm: str
) -> None:
    running = serve().until_ready()
    good = shades.current("shades").version
    with traffic(running.port, clients=2) as answers:
        directory = shades.root / "shades"
        with shades.staging("shades") as staging:
            stage(staging, "shades", Shades())
            harmed = staging.directory / "model.ts.pt"
            if harm == "flip":
                content = bytearray(harmed.read_bytes())
                content[100] ^= 1
                harmed.write_bytes(content)
            elif harm == "remove":
                harmed.unlink()
            elif harm == "extra":
                (staging.directory / "extra").write_bytes(b"")
            else:
                (staging.directory / "manifest.json").unlink()
            staging.directory.rename(directory / staging.version)
            fresh = directory / "CURRENT.fresh"
            fresh.write_text(f"{staging.version} {'0' * 64}\n")
            fresh.replace(directory / "CURRENT")
        until(lambda: "shades" in running.service.registry.refusals)
        until_more(answers, 10)
    assert {*answers} == {(200, good)}
    ready = running.client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["models"]["shades"]["refused"]["version"] == staging.version
    assert 'lantern_model_loads_total{model="shades",result="refused"} 1.0' in running.client.get("/metrics").text


def test_a_version_that_fails_its_golden_check_is_refused(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    good = shades.current("shades").version
    with shades.staging("shades") as staging:
        stage(staging, "shades", Always(0))
        # Golden scores of another model: whole, listed, and wrong.
        golden = shades.open("shades").manifest.golden
        from models.manifest import Manifest

        manifest = Manifest.parse((staging.directory / "manifest.json").read_bytes())
        staging.write_manifest(manifest.model_copy(update={"golden": golden}))
        shades.publish("shades", staging)
    until(lambda: "shades" in running.service.registry.refusals)
    assert running.service.registry.refusals["shades"].error == "GoldenMismatch"
    assert running.client.get("/models/shades").json()["version"] == good


def test_a_file_that_torch_cannot_load_is_refused(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    with shades.staging("shades") as staging:
        stage(staging, "shades", Shades())
        from models.bundle import describe_all
        from models.manifest import Manifest

        (staging.directory / "model.ts.pt").write_bytes(coded("    return self.nowhere"))
        manifest = Manifest.parse((staging.directory / "manifest.json").read_bytes())
        files = describe_all(staging.directory)
        staging.write_manifest(manifest.model_copy(update={"files": files}))
        shades.publish("shades", staging)
    until(lambda: "shades" in running.service.registry.refusals)
    assert running.service.registry.refusals["shades"].error == "ModelUnusable"


def test_after_a_refusal_the_next_good_version_goes_live(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    (shades.root / "shades/CURRENT").write_text("nonsense")
    until(lambda: "shades" in running.service.registry.refusals)
    version = publish(shades, "shades").manifest.version
    running.until_version("shades", version)
    assert running.service.registry.refusals == {}


def test_putting_the_live_version_back_clears_the_refusal(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    current = (shades.root / "shades/CURRENT").read_text()
    (shades.root / "shades/CURRENT").write_text("nonsense")
    until(lambda: "shades" in running.service.registry.refusals)
    (shades.root / "shades/CURRENT").write_text(current)
    until(lambda: not running.service.registry.refusals)


def test_a_model_published_later_goes_live(serve: Serve, repository: Repository) -> None:
    running = serve()
    publish(repository, "shades")
    running.until_ready()


def test_a_repository_that_vanishes_keeps_what_is_live(shades: Repository, serve: Serve) -> None:
    running = serve().until_ready()
    shades.root.rename(shades.root.with_name("gone"))
    until(lambda: "shades" in running.service.registry.refusals)
    response = running.client.post("/predict", content=png(0), headers=PNG)
    assert response.status_code == 200
    assert running.client.get("/health/ready").status_code == 200


def test_what_is_unloaded_stays_so_where_the_directory_goes_while_it_is_read(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve().until_ready()
    shades.unload("shades")
    until(lambda: "shades" in running.service.registry.unloaded)
    names = Repository.names

    def list_and_lose(repository: Repository) -> list[str]:
        found = names(repository)
        if repository.root.exists():
            repository.root.rename(repository.root.with_name("gone"))
        return found

    monkeypatch.setattr(Repository, "names", list_and_lose)
    until(lambda: running.service.registry.trouble is not None)
    assert running.service.registry.unloaded == {"shades"}
    assert running.client.get("/health/ready").status_code == 200


def test_damaged_defaults_keep_those_of_before(shades: Repository, serve: Serve) -> None:
    publish(shades, "always", Always(1))
    shades.set_default("image", "always")
    running = serve().until_ready()
    (shades.root / "defaults.json").write_text("nonsense")
    version = publish(shades, "shades").manifest.version
    running.until_version("shades", version)
    assert running.client.post("/predict", content=png(0), headers=PNG).json()["model"] == "always"


def test_defaults_that_are_gone_are_kept_and_none_are_asked_for_in_writing(
    shades: Repository, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    publish(shades, "always", Always(1))
    shades.set_default("image", "always")
    running = serve().until_ready()
    (shades.root / "defaults.json").unlink()
    until(lambda: "defaults.json is gone" in caplog.text)
    running.until_version("shades", publish(shades, "shades").manifest.version)
    assert running.client.post("/predict", content=png(0), headers=PNG).json()["model"] == "always"
    assert caplog.text.count("defaults.json is gone") == 1
    (shades.root / "defaults.json").write_text("{}")
    until(lambda: running.client.post("/predict", content=png(0), headers=PNG).status_code == 422)


def test_defaults_that_are_gone_only_for_a_moment_are_kept(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shades, "always", Always(1))
    shades.set_default("image", "always")
    running = serve().until_ready()
    read, looks = read_plain, 0

    def find_none(file: Path) -> bytes:
        nonlocal looks
        if file.name != "defaults.json":
            return read(file)
        looks += 1
        # It is there all the same for whoever asks the next moment.
        raise FileNotFoundError(file)

    monkeypatch.setattr("models.repository.read_plain", find_none)
    until(lambda: looks >= 2)
    assert running.client.post("/predict", content=png(0), headers=PNG).json()["model"] == "always"


def test_what_hangs_while_it_is_looked_at_stays_withdrawn(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.attempts.FIRST_RETRY_S", PATIENCE_S)
    running = serve().until_ready()
    check, looks = Reloader._check_there, 0
    look = Reloader._look

    async def check_and_withdraw(self: Reloader, name: str, live: Current) -> None:
        await check(self, name, live)
        # As the watch for hanging batches does, at any instant.
        self.withdraw(running.service.registry.live[name])

    async def count(self: Reloader) -> None:
        nonlocal looks
        await look(self)
        looks += "shades" in running.service.registry.hung

    monkeypatch.setattr(Reloader, "_check_there", check_and_withdraw)
    monkeypatch.setattr(Reloader, "_look", count)
    until(lambda: looks >= 3)
    assert running.client.get("/models/shades").json()["refused"]["error"] == "ModelHung"


class Slowly:
    """Loads, in the place of a service's loader, only once it is told to."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        loader = running.service.reloader._loader
        self.begun, self.go_on, self._load = threading.Semaphore(0), threading.Semaphore(0), loader._load
        monkeypatch.setattr(loader, "_load", self)

    def __call__(self, bundle: Bundle) -> LoadedModel:
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE_S)
        return self._load(bundle)


def test_what_is_rolled_back_while_it_loads_never_answers(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = serve().until_ready()
    good = shades.current("shades").version
    loads, seen = Slowly(running, monkeypatch), []
    go_live = Reloader._go_live

    def see(self: Reloader, name: str, loaded: LoadedModel) -> None:
        seen.append(loaded.bundle.manifest.version)
        go_live(self, name, loaded)

    monkeypatch.setattr(Reloader, "_go_live", see)
    publish(shades, "shades", Always(1))
    assert loads.begun.acquire(timeout=PATIENCE_S)
    shades.rollback("shades", good)
    loads.go_on.release()
    until(lambda: "wanted no more" in caplog.text)
    last = publish(shades, "shades", Always(2)).manifest.version
    loads.go_on.release()
    running.until_version("shades", last)
    assert seen == [last]


def test_what_is_published_while_another_loads_keeps_that_from_nothing(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve().until_ready()
    loads = Slowly(running, monkeypatch)
    second = publish(shades, "shades", Always(1)).manifest.version
    assert loads.begun.acquire(timeout=PATIENCE_S)
    # Were it dropped for this one, whoever publishes faster than is loaded would never be served anew.
    third = publish(shades, "shades", Always(2)).manifest.version
    loads.go_on.release()
    running.until_version("shades", second)
    loads.go_on.release()
    running.until_version("shades", third)


def test_what_needs_no_load_waits_for_none(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shades.current("shades").version
    second = publish(shades, "shades", Always(1)).manifest.version
    for name in ("others", "more"):
        publish(shades, name)
    shades.rollback("shades", first)
    shades.set_candidate("shades", second, 1.0)
    running = serve(versions="latest:2", default_image_model="shades").until_ready()
    client = running.client

    def version() -> str:
        answer: dict[str, str] = client.post("/predict", content=png(0), headers=PNG).json()
        return answer["version"]

    until(lambda: version() == second)
    loads = Slowly(running, monkeypatch)
    publish(shades, "others")
    assert loads.begun.acquire(timeout=PATIENCE_S)
    shades.drop_candidate("shades")
    until(lambda: version() == first)
    shades.rollback("shades", second)
    until(lambda: version() == second)
    shades.unload("more")
    until(lambda: client.get("/v2/models/more/ready").status_code == 404)
    shades.unload("others")
    until(lambda: client.get("/v2/models/others/ready").status_code == 404)
    # What was being loaded is not served when it is there.
    loads.go_on.release()
    until(lambda: not running.service.reloader._looking.locked())
    assert client.get("/v2/models/others/ready").status_code == 404


def test_a_version_that_never_finishes_loading_is_given_up_and_not_tried_again(
    shades: Repository, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.attempts.FIRST_RETRY_S", 0.0)
    running = serve().until_ready()
    serving = shades.current("shades").version
    loader, begun, end = running.service.reloader._loader, [], threading.Event()
    load = loader._load

    def hang(bundle: Bundle) -> LoadedModel:
        begun.append(bundle.manifest.version)
        end.wait()
        return load(bundle)

    with monkeypatch.context() as patched:
        patched.setattr(loader, "_load", hang)
        patched.setattr(loader, "_longest_s", 0.2)
        version = publish(shades, "shades").manifest.version
        until(lambda: "shades" in running.service.registry.refusals)
    refused = running.client.get("/models/shades").json()["refused"]
    assert (refused["version"], refused["error"]) == (version, "LoadTimedOut")
    assert "LANTERN_LOAD_TIMEOUT_S" in refused["detail"]
    # Others are loaded by another thread, and it serves on.
    publish(shades, "others")
    until(lambda: running.client.get("/models/others").status_code == 200)
    assert running.client.post("/models/shades/predict", content=png(0), headers=PNG).json()["version"] == serving
    assert begun == [version]
    assert running.client.get("/models/shades").json()["refused"]["error"] == "LoadTimedOut"
    running.until_version("shades", publish(shades, "shades").manifest.version)
    end.set()


def test_with_reloading_off_only_the_start_looks(shades: Repository, serve: Serve) -> None:
    running = serve(reload_interval_s=0).until_ready()
    first = running.client.get("/models/shades").json()["version"]
    looks: list[None] = []

    async def look() -> None:
        looks.append(None)

    running.service.reloader.look = look  # type: ignore[method-assign]
    publish(shades, "shades")
    for _ in range(20):
        assert running.client.get("/models/shades").json()["version"] == first
    assert looks == []
