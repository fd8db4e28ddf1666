"""Clients that ask a model, once or all along."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.images import png
from tests.servers import Process, until

PNG = {"Content-Type": "image/png"}
# Of a machine that is busy with something else.
PATIENCE_S = 20.0


def ask(client: httpx.Client, model: str, grey: int) -> httpx.Response:
    return client.post(f"/models/{model}/predict", content=png(grey), headers=PNG)


@contextmanager
def asked_all_along(service: Process, model: str | None, clients: int = 1) -> Iterator[list[int]]:
    """Ask a model, or the default one, again and again meanwhile; the statuses are there afterwards."""
    statuses: list[int] = []
    done = threading.Event()
    path = "/predict" if model is None else f"/models/{model}/predict"

    def go_on() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S) as client:
            # At least once, however soon the rest is done.
            while not statuses or not done.is_set():
                statuses.append(client.post(path, content=png(0), headers=PNG).status_code)

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(go_on) for _ in range(clients)]
        try:
            yield statuses
        finally:
            done.set()
            for each in asking:
                each.result()


def until_more(statuses: list[int], count: int = 20) -> None:
    """Wait until so many more were answered."""
    before = len(statuses)
    until(lambda: len(statuses) >= before + count, PATIENCE_S)
