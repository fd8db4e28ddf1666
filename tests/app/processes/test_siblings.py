"""A worker process in step with others: what it tells them, and when it swaps. The others are the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import pytest

from app.errors import Overloaded
from app.processes import siblings
from app.processes.siblings import Siblings
from app.registry import Refusal
from app.routes.health import readiness
from app.schemas import Ready
from app.service import Service
from app.settings import Settings
from models.current import Current
from models.repository import Repository
from tests.bundles import Always, publish
from tests.servers import PATIENCE_S

pytestmark = pytest.mark.anyio


@dataclass
class Worker:
    """A service, and what it told the supervisor."""

    service: Service
    siblings: Siblings
    said: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    @property
    def live(self) -> str | None:
        model = self.service.registry.live.get("shades")
        return model.manifest.version if model else None

    @property
    def stands(self) -> list[object]:
        return [fields["version"] for kind, fields in self.said if kind == "stand"]

    def go(self, current: Current) -> None:
        self.siblings.hear_served("shades", current)
        self.service.reloader.go("shades", current)
        self.siblings.looked()

    def let_go(self, current: Current) -> None:
        refusal = Refusal(current.version, "ModelUnusable", "elsewhere", datetime.now(UTC))
        self.siblings.hear_refused("shades", current)
        self.service.reloader.let_go("shades", current, refusal)


@asynccontextmanager
async def working(
    repository: Repository, reload_interval_s: float = 0.02, **served: Current
) -> AsyncIterator[Worker]:
    said: list[tuple[str, dict[str, object]]] = []
    others = Siblings(lambda kind, **fields: said.append((kind, fields)), served)
    settings = Settings(models_dir=repository.root, reload_interval_s=reload_interval_s, cpu_threads=1, workers=2)
    service = Service(settings, others)
    others.tell_readiness_of(lambda: readiness(service))
    service.start()
    try:
        yield Worker(service, others, said)
    finally:
        await service.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (what happens there has no event)
            await asyncio.sleep(0.002)


@pytest.fixture
async def worker(shades: Repository) -> AsyncIterator[Worker]:
    """One that serves version 1 with the others."""
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(working(shades, shades=shades.current("shades")))
        await until(lambda: worker.live is not None)
        yield worker


async def test_it_stands_at_what_it_loaded_and_swaps_when_all_do(worker: Worker, shades: Repository) -> None:
    first = shades.current("shades")
    assert worker.stands == [first.version]
    assert ("require", {"models": ["shades"]}) in worker.said
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    await until(lambda: worker.stands == [first.version, second.version])
    assert worker.live == first.version
    worker.go(second)
    assert worker.live == second.version
    states = [fields["body"] for kind, fields in worker.said if kind == "state"]
    assert Ready.model_validate(states[-1]).models["shades"].version == second.version


async def test_it_starts_with_what_the_others_serve_whatever_is_current(shades: Repository) -> None:
    first = shades.current("shades")
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    async with working(shades, shades=first) as worker:
        await until(lambda: worker.stands == [first.version, second.version])
        assert worker.live == first.version


async def test_alone_at_the_start_it_waits_for_the_word(shades: Repository) -> None:
    current = shades.current("shades")
    async with working(shades) as worker:
        await until(lambda: worker.stands == [current.version])
        assert worker.live is None
        worker.go(current)
        assert worker.live == current.version


async def test_others_that_went_on_meanwhile_are_followed(shades: Repository) -> None:
    """It stands at the current version, and hears that the others serve an older one."""
    first = shades.current("shades")
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    async with working(shades) as worker:
        await until(lambda: worker.stands == [second.version])
        worker.siblings.hear_served("shades", first)
        await until(lambda: worker.live == first.version)


async def test_what_the_others_went_on_to_is_loaded_at_once_however_rarely_it_looks(shades: Repository) -> None:
    async with working(shades, 3000, shades=shades.current("shades")) as worker:
        await until(lambda: worker.service.registry.ready)
        publish(shades, "shades", Always(1))
        second = shades.current("shades")
        publish(shades, "shades", Always(2))  # Current, but not what the others serve.
        worker.go(second)
        await until(lambda: worker.live == second.version)


async def test_what_the_others_serve_and_it_cannot_load_does_not_keep_it_from_later_versions(
    shades: Repository,
) -> None:
    first = shades.current("shades")
    async with working(shades, 3000, shades=first) as worker:
        await until(lambda: worker.service.registry.ready)
        broken = publish(shades, "shades", Always(1))
        (broken.directory / "model.ts.pt").write_bytes(b"")
        worker.go(shades.current("shades"))
        await until(lambda: "refuse" in [kind for kind, _ in worker.said])
        third = publish(shades, "shades", Always(2)).manifest
        await worker.service.reloader.look()
        assert worker.stands == [first.version, third.version]


async def test_what_another_refused_is_let_go_and_shown(worker: Worker, shades: Repository) -> None:
    first = worker.live
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    await until(lambda: worker.stands[-1:] == [second.version])
    worker.let_go(second)
    assert worker.said[-1] == ("let_go", {"model": "shades", **asdict(second)})
    assert worker.service.registry.refusals["shades"].detail == "elsewhere"
    worker.go(second)  # It has it no longer.
    assert worker.live == first
    publish(shades, "shades", Always(2))
    third = shades.current("shades")
    await until(lambda: worker.stands[-1:] == [third.version])
    worker.go(third)
    assert (worker.live, worker.service.registry.refusals) == (third.version, {})


async def test_the_refusal_of_an_older_version_leaves_a_newer_one_standing(
    worker: Worker, shades: Repository
) -> None:
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    publish(shades, "shades", Always(2))
    third = shades.current("shades")
    await until(lambda: worker.stands[-1:] == [third.version])
    worker.let_go(second)
    worker.go(third)
    assert worker.live == third.version


async def test_a_rollback_takes_back_what_it_stood_at(worker: Worker, shades: Repository) -> None:
    first = shades.current("shades")
    publish(shades, "shades", Always(1))
    second = shades.current("shades")
    await until(lambda: worker.stands[-1:] == [second.version])
    shades.rollback("shades", first.version)
    await until(lambda: worker.stands[-1:] == [first.version])
    worker.go(second)
    assert worker.live == first.version


async def test_its_own_refusal_is_told(shades: Repository) -> None:
    bundle = publish(shades, "broken")
    (bundle.directory / "model.ts.pt").write_bytes(b"")
    async with working(shades) as worker:
        await until(lambda: "refuse" in [kind for kind, _ in worker.said])
    (told,) = [fields for kind, fields in worker.said if kind == "refuse"]
    assert (told["model"], told["error"]) == ("broken", "FileCorrupt")
    assert (told["version"], told["manifest_sha256"]) == (bundle.manifest.version, bundle.manifest_sha256)


async def test_a_supervisor_that_does_not_answer_is_told_instead_of_figures_that_fell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(siblings, "ANSWER_WITHIN_S", 0.01)
    alone = Siblings(lambda kind, **fields: None, {})
    with pytest.raises(Overloaded, match="does not answer"):
        await alone.figures([])


async def test_until_the_supervisor_says_so_the_service_is_not_ready() -> None:
    others = Siblings(lambda kind, **fields: None, {})
    own = Ready(status="ready", models={})
    assert others.readiness(own).status == "not_ready"
    others.hear_readiness({"status": "not_ready", "detail": "why", "models": {}}, ready=False)
    assert others.readiness(own).detail == "why"
    others.hear_readiness(None, ready=True)
    assert others.readiness(own) == own
