"""A GPU's faults: too little memory halves the batch; one that does not pass ends the process, to be replaced."""

import httpx

from models.repository import Repository
from tests.bundles import publish
from tests.faults.asking import PATIENCE_S, ask
from tests.images import png
from tests.servers import process, until

PROGRAM = "tests.faults.failing_gpu"
WHITE = 255


def test_a_batch_that_does_not_fit_the_memory_is_answered_in_halves(shades: Repository) -> None:
    with process(shades.root, module=PROGRAM) as service:
        client = service.until_ready().client
        greys = [0, 0, 120, 0, 120, 0, 0, 120]
        answer = client.post("/predict", files=[("file", png(grey)) for grey in greys])
        labels = [each["label"] for each in answer.json()["predictions"]]
        assert labels == ["dark" if grey == 0 else "grey" for grey in greys]
        assert any("is run in halves" in line and "OutOfMemoryError" in line for line in service.lines)
        assert client.get("/health/ready").status_code == 200


def test_a_device_that_is_lost_fails_readiness_and_ends_the_process(shades: Repository) -> None:
    publish(shades, "other")
    with process(shades.root, module=PROGRAM, drain_grace_s=2) as service:
        client = service.until_ready().client
        lost = ask(client, "shades", WHITE)
        # Whoever asks again elsewhere is answered.
        assert (lost.status_code, lost.json()["code"], lost.headers["retry-after"]) == (503, "draining", "1")
        assert client.get("/health/ready").json()["status"] == "draining"
        # And nothing more is tried here.
        refused = ask(client, "other", 0).json()
        assert (refused["code"], "about to stop" in refused["detail"]) == ("draining", True)
        assert "lost its device" not in refused["detail"]
        assert service.wait() == 1
    assert sum("does not work any more: the process leaves" in line for line in service.lines) == 1


def test_a_worker_process_whose_device_is_lost_is_replaced(shades: Repository) -> None:
    with process(shades.root, module=PROGRAM, workers=2, reload_interval_s=0.05) as service:
        client = service.until_ready().client
        assert ask(client, "shades", WHITE).status_code == 503
        until(lambda: any("it is replaced" in line for line in service.lines), PATIENCE_S)
        for _ in range(20):
            assert (
                httpx.post(
                    f"{client.base_url}/predict", content=png(0), headers={"Content-Type": "image/png"}
                ).status_code
                == 200
            )
        until(lambda: "lantern_worker_processes 2.0" in client.get("/metrics").text, PATIENCE_S)
