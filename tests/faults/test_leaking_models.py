"""A model that keeps memory: its process is replaced before the system ends it, and no request fails for it."""

import re

from models.repository import Repository
from tests.bundles import publish
from tests.faults.asking import PATIENCE_S, ask, asked_all_along, until_more
from tests.faults.models import WHITE, Leaks
from tests.servers import Process, process, until

# The interpreter and torch take most of it.
MOST_BYTES = 900 * 1024**2


def resident_bytes(service: Process) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", service.client.get("/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def until_watched(service: Process, processes: int = 1) -> None:
    until(lambda: sum("the models are there:" in line for line in service.lines) == processes, PATIENCE_S)


def leak_until_it_leaves(service: Process) -> None:
    def leaves() -> bool:
        assert ask(service.client, "leaks", WHITE).status_code == 200
        return any("over LANTERN_MAX_MEMORY_BYTES are held: the process leaves" in line for line in service.lines)

    until(leaves, PATIENCE_S)


def test_a_worker_process_that_holds_too_much_is_replaced_and_no_request_fails(repository: Repository) -> None:
    publish(repository, "shades")
    publish(repository, "leaks", Leaks())
    with process(
        repository.root, workers=2, cpu_threads=1, max_memory_bytes=MOST_BYTES, reload_interval_s=0.05
    ) as service:
        client = service.until_ready().client
        with asked_all_along(service, "shades", clients=8) as others:
            until_watched(service, processes=2)
            before_bytes = resident_bytes(service)
            for _ in range(20):
                assert ask(client, "leaks", WHITE).status_code == 200
            assert resident_bytes(service) - before_bytes > 100e6
            leak_until_it_leaves(service)
            until(lambda: any("it is replaced" in line for line in service.lines), PATIENCE_S)
            until(lambda: "lantern_worker_processes 2.0" in client.get("/metrics").text, PATIENCE_S)
            until_more(others)
        assert set(others) == {200}
        assert not any("killed by signal" in line for line in service.lines)


def test_a_lone_process_that_holds_too_much_leaves_as_if_told_to(repository: Repository) -> None:
    publish(repository, "leaks", Leaks())
    with process(repository.root, max_memory_bytes=MOST_BYTES, drain_grace_s=1) as service:
        client = service.until_ready().client
        until_watched(service)
        leak_until_it_leaves(service)
        assert client.get("/health/ready").status_code == 503
        assert service.wait() == 1


def test_it_leaves_though_another_model_cannot_be_loaded(repository: Repository) -> None:
    publish(repository, "leaks", Leaks())
    (publish(repository, "shades").directory / "manifest.json").write_text("damaged")
    with process(repository.root, max_memory_bytes=MOST_BYTES, drain_grace_s=1) as service:
        until_watched(service)
        assert service.client.get("/health/ready").status_code == 503
        leak_until_it_leaves(service)
        assert service.wait() == 1


def test_a_bound_that_the_models_alone_exceed_is_told_and_has_no_effect(shades: Repository) -> None:
    with process(shades.root, max_memory_bytes=1) as service:
        client = service.until_ready().client
        until(lambda: any("the models alone take more" in line for line in service.lines), PATIENCE_S)
        assert ask(client, "shades", 0).status_code == 200
        assert client.get("/health/ready").status_code == 200
