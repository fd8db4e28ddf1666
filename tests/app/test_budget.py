"""What a lone request costs the event loop, counted: seconds differ from machine to machine, calls do not.

A change that makes requests dearer fails here. If it is worth it, raise the budget in the same commit and say why.
"""

import asyncio
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from models.repository import Repository
from tests.bundles import publish, publish_texts
from tests.images import png
from tests.servers import ROOT

# Most for one request.
BUDGET: Mapping[str, float] = {
    # Functions of ours and of packages; a tenth of them to spare.
    "calls": 125,
    # The request's own, which the server makes.
    "tasks": 1,
    # For its deadline, whatever the stage.
    "timers": 1,
    # From a worker: the answer.
    "hops": 1,
}
WARM_UP, COUNTED = 20, 50
APP = str(ROOT / "app")


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts what is asked of it; how its methods' arguments belong together, it leaves to them."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def create_task(self, *arguments: Any, **options: Any) -> Any:
        self.counted["tasks"] += 1
        return super().create_task(*arguments, **options)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self.counted["timers"] += 1
        return super().call_at(when, callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self.counted["hops"] += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


async def ask(app: FastAPI, body: bytes, content_type: bytes) -> int:
    """Ask as the server does, of a client that stays."""
    received = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []
    stays = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, Any]:
        return received.pop() if received else await stays

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"host", b"here"), (b"accept", b"*/*"), (b"content-type", content_type)],
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    await asyncio.create_task(app(scope, receive, send))
    status: int = sent[0]["status"]
    return status


async def counted(app: FastAPI, body: bytes, content_type: bytes) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    for _ in range(WARM_UP):
        assert await ask(app, body, content_type) == 200
    found: list[Counter[str]] = []
    for _ in range(COUNTED):
        loop.counted.clear()
        # Unlike a profiler it sees this thread alone, in every version of Python.
        sys.setprofile(partial(_count, loop.counted))
        try:
            await ask(app, body, content_type)
        finally:
            sys.setprofile(None)
        found.append(Counter(loop.counted))
    # The usual one: of those that the machine held up, some take longer ways.
    return {kind: statistics.median(each[kind] for each in found) for kind in BUDGET}


def _count(counted: Counter[str], frame: FrameType, event: str, _argument: object) -> None:
    # Functions of Python's own are called by these, and differ from version to version.
    file = frame.f_code.co_filename
    if event == "call" and ("site-packages" in file or file.startswith(APP)):
        counted["calls"] += 1


def of_a_service(repository: Repository, body: bytes, content_type: bytes) -> dict[str, float]:
    async def run() -> dict[str, float]:
        settings = {"models_dir": repository.root, "port": 0, "cpu_threads": 1}
        settings |= {"reload_interval_s": 0, "hang_timeout_s": 0}  # Nothing else is done meanwhile.
        app = create_app(Settings.model_validate(settings))
        service = app.state.service
        service.start()
        try:
            await service.reloader.look()
            return await counted(app, body, content_type)
        finally:
            await service.stop()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        return runner.run(run())


Publish = Callable[[Repository, str], object]


@pytest.mark.parametrize(
    ("published", "body", "content_type"),
    [(publish, png(200), b"image/png"), (publish_texts, b"a good film", b"text/plain")],
)
def test_a_lone_request_stays_within_its_budget(
    repository: Repository, published: Publish, body: bytes, content_type: bytes
) -> None:
    published(repository, "model")
    found = of_a_service(repository, body, content_type)
    assert {kind: count for kind, count in found.items() if count > BUDGET[kind]} == {}
    # A budget that is far too large would let the next waste pass.
    assert found["calls"] > 0.8 * BUDGET["calls"], found
