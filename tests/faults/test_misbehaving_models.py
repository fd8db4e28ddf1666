"""A model that misbehaves fails its own requests cleanly, and no other model's."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from torch import nn

from models.bundle import describe_all
from models.manifest import MANIFEST_NAME, Manifest
from models.repository import Repository
from tests.bundles import Shades, publish, stage
from tests.faults.asking import PATIENCE_S, ask, asked_all_along
from tests.faults.models import (
    WHITE,
    GivesAnotherShape,
    GivesNaN,
    GivesTooFew,
    Hangs,
    HangsInPairs,
    LoopsWhenLoaded,
    Raises,
)
from tests.servers import process, until
from training.export import script

HANG_TIMEOUT_S = 0.5
# Far more than a good version takes.
LOAD_TIMEOUT_S = 15


@pytest.mark.parametrize("module", [Raises(), GivesNaN(), GivesAnotherShape(), GivesTooFew()])
def test_only_the_requests_that_a_model_cannot_answer_fail(repository: Repository, module: nn.Module) -> None:
    publish(repository, "shades")
    publish(repository, "bad", module)
    with process(repository.root, cpu_threads=2) as service:
        client = service.until_ready().client
        with asked_all_along(service, "shades") as others, ThreadPoolExecutor(8) as askers:
            # They come together, and so in one batch.
            greys = [WHITE, 0, 10, 20, WHITE, 30, 40, 50] * 5
            answers = list(askers.map(lambda grey: ask(client, "bad", grey), greys))
        for grey, answer in zip(greys, answers, strict=True):
            if grey == WHITE:
                assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
            else:
                assert answer.json()["predictions"][0]["label"] == "grey"
        assert set(others) == {200}


def test_a_hung_batch_is_given_up_and_its_model_loaded_anew(repository: Repository) -> None:
    publish(repository, "shades")
    version = publish(repository, "bad", Hangs()).manifest.version
    with process(repository.root, cpu_threads=2, hang_timeout_s=HANG_TIMEOUT_S, reload_interval_s=0.05) as service:
        client = service.until_ready().client
        with asked_all_along(service, "shades") as others:
            answer = ask(client, "bad", WHITE)
            assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
            assert "did not come back" in answer.json()["detail"]
            refused = client.get("/models/bad").json()["refused"]
            assert (refused["version"], refused["error"]) == (version, "ModelHung")
            meanwhile = ask(client, "bad", 0)
            assert (meanwhile.status_code, meanwhile.json()["code"]) == (503, "model_not_ready")
            assert int(meanwhile.headers["retry-after"]) > 0
            # The others' requests need not go elsewhere for it.
            assert client.get("/health/ready").status_code == 200
            until(lambda: ask(client, "bad", 0).status_code == 200, PATIENCE_S)
        assert ask(client, "bad", 0).json()["predictions"][0]["label"] == "grey"
        assert client.get("/models/bad").json()["refused"] is None
        assert set(others) == {200}
        told = client.get("/metrics").text
        assert f'lantern_hung_batches_total{{model="bad",version="{version}"}} 1.0' in told
    assert any("bad" in line and "hangs" in line for line in service.lines)


def test_a_version_that_hangs_in_its_warm_up_keeps_no_other_from_being_loaded(repository: Repository) -> None:
    publish(repository, "shades")
    good = publish(repository, "bad").manifest.version
    with process(repository.root, load_timeout_s=LOAD_TIMEOUT_S, reload_interval_s=0.05) as service:
        client = service.until_ready().client
        with asked_all_along(service, "shades") as others:
            hangs = publish(repository, "bad", HangsInPairs()).manifest.version
            until(lambda: client.get("/models/bad").json()["refused"] is not None, 4 * LOAD_TIMEOUT_S)
            refused = client.get("/models/bad").json()["refused"]
            assert (refused["version"], refused["error"]) == (hangs, "LoadTimedOut")
            assert ask(client, "bad", 0).json()["version"] == good
            newer = publish(repository, "shades").manifest.version
            until(lambda: client.get("/models/shades").json()["version"] == newer, PATIENCE_S)
        assert set(others) == {200}
        service.popen.terminate()
        assert service.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_a_model_keeps_the_interpreter_of_ends_itself(repository: Repository, workers: int) -> None:
    publish(repository, "shades")
    with process(repository.root, stall_timeout_s=5, reload_interval_s=0.05, workers=workers) as service:
        client = service.until_ready().client
        publish_looping(repository, "shades")
        if workers == 1:
            assert service.wait() == 1
        else:
            until(
                lambda: any("exited with status 1; it is replaced" in line for line in service.lines), PATIENCE_S
            )
            until(lambda: is_live(client))
        # Where it stood.
        assert any("models/torchscript_graph.py" in line for line in service.lines)


def is_live(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:  # By a worker process that is about to end.
        return False


def publish_looping(repository: Repository, name: str) -> None:
    with repository.staging(name) as staging:
        stage(staging, name, Shades())
        described = Manifest.model_validate_json((staging.directory / MANIFEST_NAME).read_bytes())
        # Exchanged afterwards: nobody could write its golden examples.
        (staging.directory / "model.ts.pt").write_bytes(script(LoopsWhenLoaded()))
        files = describe_all(staging.directory)
        staging.write_manifest(described.model_copy(update={"files": files}))
        repository.publish(name, staging)


def test_as_many_threads_work_as_before_one_hung(repository: Repository) -> None:
    publish(repository, "shades")
    for name in ("bad", "worse"):
        publish(repository, name, Hangs())
    with process(repository.root, cpu_threads=1, hang_timeout_s=HANG_TIMEOUT_S) as service:
        client = service.until_ready().client
        with ThreadPoolExecutor(2) as askers:
            hung = [askers.submit(ask, client, name, WHITE) for name in ("bad", "worse")]
            # The only thread is taken, and then the one in its place.
            assert ask(client, "shades", 0).status_code == 200
            assert [each.result().status_code for each in hung] == [500, 500]
        assert ask(client, "shades", 0).status_code == 200


def test_what_waits_for_a_hung_model_is_told_to_come_back(repository: Repository) -> None:
    publish(repository, "bad", Hangs())
    with process(repository.root, cpu_threads=1, hang_timeout_s=HANG_TIMEOUT_S) as service:
        client = service.until_ready().client
        with ThreadPoolExecutor(6) as askers:
            greys = [WHITE, 0, 0, 0, 0, 0]
            answers = list(askers.map(lambda grey: ask(client, "bad", grey), greys))
        assert {answer.status_code for answer in answers} <= {200, 500, 503}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 503)


def test_a_process_in_which_many_threads_hang_leaves(repository: Repository) -> None:
    for number in range(4):
        publish(repository, f"bad-{number}", Hangs())
    with process(
        repository.root, cpu_threads=4, hang_timeout_s=HANG_TIMEOUT_S, drain_grace_s=0, drain_timeout_s=1
    ) as service:
        client = service.until_ready().client
        with ThreadPoolExecutor(4) as askers:
            list(askers.map(lambda number: ask(client, f"bad-{number}", WHITE), range(4)))
        assert service.wait() == 1
    assert any("the process leaves" in line for line in service.lines)


def test_a_worker_process_in_which_many_threads_hang_is_replaced(repository: Repository) -> None:
    for number in range(4):
        publish(repository, f"bad-{number}", Hangs())
    publish(repository, "shades")
    with process(
        repository.root, workers=2, cpu_threads=4, hang_timeout_s=HANG_TIMEOUT_S, drain_timeout_s=1
    ) as service:
        client = service.until_ready().client
        # One after the other over one connection, and so all in one of the two.
        with httpx.Client(base_url=client.base_url, timeout=PATIENCE_S) as own:
            for number in range(4):
                assert ask(own, f"bad-{number}", WHITE).status_code == 500
        until(lambda: any("the process leaves" in line for line in service.lines), PATIENCE_S)
        until(lambda: any("it is replaced" in line for line in service.lines), PATIENCE_S)
        until(lambda: sum(ask(client, "shades", 0).status_code == 200 for _ in range(5)) == 5, PATIENCE_S)


def test_where_nobody_looks_for_versions_a_hung_model_is_loaded_anew_too(repository: Repository) -> None:
    publish(repository, "bad", Hangs())
    with process(repository.root, cpu_threads=2, hang_timeout_s=HANG_TIMEOUT_S, reload_interval_s=0) as service:
        client = service.until_ready().client
        assert ask(client, "bad", WHITE).status_code == 500
        until(lambda: ask(client, "bad", 0).status_code == 200, PATIENCE_S)
