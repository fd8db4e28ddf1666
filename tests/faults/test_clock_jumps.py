"""A wall clock that jumps while the service runs: nothing waits by it, and no request fails or hangs."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from models.repository import Repository
from tests.bundles import Always, publish
from tests.faults.asking import PATIENCE_S, PNG, asked_all_along, until_more
from tests.faults.clocks import WallClock
from tests.images import png
from tests.servers import process, processor_s, until

ADDRESS = "/models/shades/predict"
DAY_S = 86_400.0
IN_1970_S = 3600.0
# A test takes seconds; a jump is of hours and more.
NEAR_S = 600.0


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


def shown_s(client: httpx.Client) -> float:
    """What the service's wall clock shows, as it says in each answer."""
    return parsedate_to_datetime(client.get("/health/live").headers["date"]).timestamp()


def is_live(client: httpx.Client, name: str) -> bool:
    return client.get(f"/models/{name}").status_code == 200


def answerers(client: httpx.Client) -> list[str]:
    """Which version answers each of some keys."""
    keys = [PNG | {"X-Routing-Key": f"key-{number}"} for number in range(8)]
    asked = [client.post(ADDRESS, content=png(0), headers=key) for key in keys]
    assert {each.status_code for each in asked} == {200}
    return [each.json()["version"] for each in asked]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_notices(repository: Repository, clock: WallClock, tmp_path: Path, workers: int) -> None:
    current, tried = (publish(repository, "shades", Always(index)).manifest.version for index in range(2))
    repository.rollback("shades", current)
    repository.set_candidate("shades", tried, share=0.5)
    file, received = tmp_path / "corrections", []
    with process(
        repository.root,
        through=clock.through,
        workers=workers,
        cpu_threads=2,
        reload_interval_s=0.05,
        queue_delay_ms=1,
        feedback_file=file,
    ) as service:
        client = service.until_ready().client
        until(lambda: any("tries a candidate" in line for line in service.lines), PATIENCE_S)
        until(lambda: {*answerers(client)} == {current, tried}, PATIENCE_S)
        before = answerers(client)
        with asked_all_along(service, "shades") as statuses:
            today_s = clock.now_s
            for now_s in (today_s + DAY_S, today_s - DAY_S, IN_1970_S, today_s):
                clock.set(now_s)
                until(lambda: abs(shown_s(client) - clock.now_s) < NEAR_S, PATIENCE_S)
                until_more(statuses)
                # Neither late at once nor never; and the trial's share goes to the same keys.
                files = [("file", png(grey)) for grey in range(8)]
                answer = client.post(ADDRESS, files=files, headers={"X-Request-Timeout-Ms": "10000"})
                assert answer.status_code == 200
                assert all(0 <= took_ms < 10_000 for took_ms in answer.json()["timing_ms"].values())
                assert answerers(client) == before
                correction = {"request_id": "r-1", "model": "shades", "label": "light"}
                assert client.post("/feedback", json=correction).status_code == 201
                received.append(clock.now_s)
                # Whoever looks for what was published goes on looking.
                name = f"new-{len(received)}"
                publish(repository, name)
                until(partial(is_live, client, name), PATIENCE_S)
        assert set(statuses) == {200}
    with closing(sqlite3.connect(file)) as connection:
        times = [each for (each,) in connection.execute("SELECT received_at FROM corrections ORDER BY id")]
    for said, expected_s in zip(times, received, strict=True):
        assert abs(datetime.fromisoformat(said).timestamp() - expected_s) < NEAR_S
    lines = [json.loads(line) for line in service.lines]
    assert all(0 <= line["duration_ms"] < NEAR_S * 1000 for line in lines if "duration_ms" in line)
    assert {datetime.fromisoformat(line["time"]).year for line in lines} == {1970, datetime.now(UTC).year}
    assert not [line for line in lines if "exception" in line]


def test_no_client_may_ask_more_for_it_nor_less(shades: Repository, clock: WallClock) -> None:
    with process(shades.root, through=clock.through, rate_limit_per_s=0.01, rate_limit_burst=3) as service:
        client = service.until_ready().client
        today_s = clock.now_s
        statuses = [client.post("/predict", content=png(0), headers=PNG).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        for now_s in (today_s + DAY_S, IN_1970_S, today_s):
            clock.set(now_s)
            until(lambda: abs(shown_s(client) - clock.now_s) < NEAR_S, PATIENCE_S)
            refused = client.post("/predict", content=png(0), headers=PNG)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 100


def test_nobody_is_busy_for_it(shades: Repository, clock: WallClock) -> None:
    with process(shades.root, through=clock.through, queue_delay_ms=1) as service:
        client = service.until_ready().client
        for now_s in (clock.now_s + DAY_S, IN_1970_S):
            clock.set(now_s)
            until(lambda: abs(shown_s(client) - clock.now_s) < NEAR_S, PATIENCE_S)
            assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
            # Helpers of a parallel computation may spin for a moment after it.
            until(lambda: processor_s(service.popen.pid, within_s=0.2) <= 0.01)
            assert processor_s(service.popen.pid, within_s=1.0) < 0.05
