"""What no server can beat on this machine: the model alone, decoding alone, HTTP alone.

    python -m benchmarks.limits model FOLDER BODY...     items a second of each form, by batch size and threads
    python -m benchmarks.limits decode FOLDER BODY...
    python -m benchmarks.limits http --port PORT [--framework]

`folder` is one that `benchmarks.workloads` lays out. The first two use Lantern's own preparation and a plain loop
over each form of the model that runs here; the combined limit of a server is what both leave of the processor:
1 / (1 / model + 1 / decode).
"""

import argparse
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # They bring torch, which the servers of this file do without.
    from torch import Tensor

    from models.bundle import Bundle
    from models.runnable import Run

SECONDS = 1.0
BATCHES = (1, 8)
FEWEST_WARM_UPS = 3


def main() -> None:
    """Print one number: items or nothing; or serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="what", required=True)
    for what in ("model", "decode"):
        way = ways.add_parser(what)
        way.add_argument("models_dir", type=Path)
        way.add_argument("bodies", type=Path, nargs="+")
    http = ways.add_parser("http")
    http.add_argument("--port", type=int, required=True)
    http.add_argument("--framework", action="store_true", help="FastAPI's Request.body() instead of bare ASGI")
    arguments = parser.parse_args()
    if arguments.what == "http":
        _serve(arguments.port, framework=arguments.framework)
    else:
        limit = model_per_s if arguments.what == "model" else decode_per_s
        print(json.dumps(limit(arguments.models_dir, [path.read_bytes() for path in arguments.bodies])))


def model_per_s(models_dir: Path, bodies: list[bytes]) -> dict[str, dict[str, float]]:
    """Items a second of each form of the model that runs here, by workers x threads and batch size.

    Batches hold what is asked, in its order: of texts, each is padded to its longest.

    Returns:
        Form -> way -> items a second.
    """
    import torch

    from app.backends import usable
    from models.repository import Repository
    from models.runnable import runnable

    (name,) = Repository(models_dir).names()
    bundle = Repository(models_dir).open(name)
    device, cores = torch.device("cpu"), len(os.sched_getaffinity(0))
    return {
        backend.id: _ways_per_s(runnable(backend, bundle.read, device, cores), bundle, bodies, cores)
        for backend in usable(bundle.manifest, device, "auto")
    }


def _ways_per_s(run: "Run", bundle: "Bundle", bodies: list[bytes], cores: int) -> dict[str, float]:
    from models.preparation import preparation_of

    preparation = preparation_of(bundle.manifest, bundle.read)
    examples = [preparation.prepare(body) for body in bodies]
    found = {}
    for workers, size in itertools.product(sorted({1, cores}), BATCHES):
        rest = itertools.cycle(examples)
        batches = [preparation.collate(list(itertools.islice(rest, size))) for _ in examples]
        turn = itertools.cycle(batches)

        def work(turn: "Iterator[Tensor]" = turn, threads: int = cores // workers) -> int:
            batch = next(turn)
            run(batch, threads)
            return len(batch)

        found[f"{workers} x {cores // workers} threads, batch {size}"] = _per_s(work, workers, len(batches))
    return found


def decode_per_s(models_dir: Path, bodies: list[bytes]) -> dict[str, float]:
    """Items a second that every core together prepares."""
    import torch

    from models.preparation import preparation_of
    from models.repository import Repository

    torch.set_num_threads(1)
    (name,) = Repository(models_dir).names()
    bundle = Repository(models_dir).open(name)
    preparation = preparation_of(bundle.manifest, bundle.read)
    turn = itertools.cycle(bodies)

    def work() -> int:
        preparation.prepare(next(turn))
        return 1

    cores = len(os.sched_getaffinity(0))
    return {f"{cores} threads": _per_s(work, cores, len(bodies))}


def _per_s(work: Callable[[], int], threads: int, kinds: int) -> float:
    """Call `work` on so many threads for a while, once it is warm; it says how many items a call did.

    Args:
        work: What is measured.
        threads: How many call it.
        kinds: Calls before it has met everything once: TorchScript compiles for shapes that are new to it.
    """
    done = [0] * threads
    warm, begin, stop = threading.Barrier(threads + 1), threading.Event(), threading.Event()

    def loop(index: int) -> None:
        for _ in range(max(FEWEST_WARM_UPS, kinds)):
            work()
        warm.wait()
        begin.wait()
        while not stop.is_set():
            done[index] += work()

    running = [threading.Thread(target=loop, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    warm.wait()
    start_s = time.perf_counter()
    begin.set()
    time.sleep(SECONDS)
    stop.set()
    for thread in running:
        thread.join()
    return sum(done) / (time.perf_counter() - start_s)


def _serve(port: int, *, framework: bool) -> None:
    """Read each body whole and answer a few bytes of JSON."""
    import uvicorn
    from fastapi import FastAPI, Request
    from starlette.types import Receive, Scope, Send

    answer = b'{"label":"Sneaker","score":0.971}'

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    with_fastapi = FastAPI()

    @with_fastapi.post("/predict")
    async def predict(request: Request) -> dict[str, object]:
        await request.body()
        return {"label": "Sneaker", "score": 0.971}

    uvicorn.run(
        with_fastapi if framework else bare,
        port=port,
        lifespan="off" if not framework else "auto",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
