"""The starter model's figures, as a user gets them.

    python -m benchmarks.starter [--models-dir DIRECTORY]

Trains and publishes into an empty repository (unless --models-dir names one that is published already),
starts `python -m app` on it, posts every test image as PNG bytes to /predict, and prints what came back:
training time, accuracy, expected calibration error, and the time that the whole test set took.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import torch

from models.repository import Repository
from training.datasets import fashion_mnist
from training.evaluate import calibration_error
from training.tasks.images import encode_png

CONNECTIONS = 8
START_TIMEOUT_S = 60.0


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", type=Path, help="a repository that holds `fashion`; else it is trained")
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models_dir = arguments.models_dir or Path(scratch)
        if arguments.models_dir is None:
            start_s = time.perf_counter()
            command = [sys.executable, "-m", "training", "fashion", "--models-dir", str(models_dir)]
            subprocess.run(command, check=True)
            print(f"python -m training fashion, whole command: {time.perf_counter() - start_s:.0f} s")
        scores_NK, labels_N, took_s = _ask_for_the_test_set(models_dir, arguments.port)
    confidence_N, predicted_N = scores_NK.max(1)
    right_N = predicted_N == labels_N
    print(f"test accuracy through POST /predict from PNG bytes: {right_N.float().mean():.2%} of {len(right_N)}")
    print(f"expected calibration error through POST /predict: {calibration_error(confidence_N, right_N):.4f}")
    print(f"{len(labels_N) / took_s:.0f} requests a second over {CONNECTIONS} connections")


def _ask_for_the_test_set(models_dir: Path, port: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    labels = list(Repository(models_dir).open("fashion").manifest.labels)
    test = fashion_mnist.load(None, validation_fraction=0.1, seed=0).test
    bodies = [encode_png(image_CHW) for image_CHW in test.images_NCHW]
    environment = os.environ | {"LANTERN_MODELS_DIR": str(models_dir), "LANTERN_PORT": str(port)}
    quiet = environment | {"LANTERN_LOG_LEVEL": "warning", "LANTERN_DRAIN_GRACE_S": "0"}
    service = subprocess.Popen([sys.executable, "-m", "app"], env=quiet)
    limits = httpx.Limits(max_connections=CONNECTIONS)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30) as client:
            _wait_until_ready(client)

            def ask(body: bytes) -> list[float]:
                parameters: dict[str, str | int] = {"model": "fashion", "top_k": len(labels)}
                reply = client.post(
                    "/predict", params=parameters, content=body, headers={"Content-Type": "image/png"}
                )
                reply.raise_for_status()
                top = {each["label"]: each["score"] for each in reply.json()["predictions"][0]["top"]}
                return [top[label] for label in labels]

            with ThreadPoolExecutor(CONNECTIONS) as pool:
                start_s = time.perf_counter()
                scores_NK = torch.tensor(list(pool.map(ask, bodies)))
                took_s = time.perf_counter() - start_s
    finally:
        service.terminate()
        service.wait()
    return scores_NK, test.labels_N, took_s


def _wait_until_ready(client: httpx.Client) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_s:
        try:
            if client.get("/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service was not ready in time")


if __name__ == "__main__":
    main()
