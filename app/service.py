"""The running service: its stages wired together, and its life from starting to drained."""

import asyncio
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.administration import Administration
from app.api_keys import ApiKeys
from app.batching import Batcher
from app.buffering import BodyBudget
from app.crew import Crew
from app.decoding import decode
from app.gate import Gate
from app.hangs import HangWatch
from app.inference import LoadedModel, load
from app.loader import Loader
from app.memory import MemoryWatch
from app.metrics import Metrics
from app.prediction import Predictor
from app.processes.merging import Family
from app.processes.siblings import Siblings
from app.rate_limit import RateLimiter
from app.registry import Registry
from app.reloading import Reloader
from app.responding import answer
from app.settings import Settings
from app.shadowing import Shadowing
from app.spare_time import SpareTime
from app.version_policy import VersionPolicy
from app.workers import Workers
from models.bundle import Bundle
from models.device import choose_device
from models.errors import DeviceLost
from models.feedback import FeedbackStore
from models.operators import parse_operators
from models.pause import no_pause
from models.public_keys import PublicKeys
from models.repository import Repository

logger = logging.getLogger(__name__)

# Batches and decodes that nobody waits for any more have so long to come back.
LAST_WORK_S = 5.0
# Whoever administers waits so long for somebody else who changes the same model.
PUBLISHER_PATIENCE_S = 5.0
CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Service:
    """What the routes talk to; started on the event loop. Nothing is shared between two of them.

    Args:
        settings: Of the whole service.
        siblings: The other worker processes, if this is one of several.
    """

    def __init__(self, settings: Settings, siblings: Siblings | None = None) -> None:
        self.settings = settings
        self.siblings = siblings
        self.metrics = Metrics()
        self.keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
        self.admin_keys = ApiKeys(settings.admin_keys_file) if settings.admin_keys_file else None
        self.limiter = _limiter(settings)
        self.pool = ThreadPoolExecutor(thread_name_prefix="request")
        # One thread: who waits for the file of corrections, or for its disk, takes none from predictions.
        self.feedback_pool = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self.budget = BodyBudget(settings.max_buffered_bytes // settings.workers)
        self.gate = Gate(self.metrics, settings.request_timeout_s)
        self.device = choose_device(settings.device)
        self.repository = Repository(settings.models_dir, PUBLISHER_PATIENCE_S, _trusted(settings))
        self.registry = Registry(
            {"image": settings.default_image_model, "text": settings.default_text_model},
            siblings.required if siblings is not None else None,
        )
        self.leaving = False
        # What serves it has it leave; by itself it can only say so.
        self.on_lost: Callable[[], None] = lambda: logger.critical("nothing serves this, to leave with it")
        self._workers = Workers(settings.cpu_threads or max(1, available_cpus() // settings.workers))
        self._shadowing = Shadowing(self.registry, self.metrics)
        self.predictor = Predictor(self.registry, self.metrics, self._shadowing)
        self.reloader = Reloader(
            Loader(self.repository, self._load, self.metrics, settings.load_timeout_s or None),
            self.registry,
            self._make_batcher,
            self.metrics,
            siblings,
            VersionPolicy.parse(settings.versions),
        )
        self._hangs = HangWatch(
            self.registry,
            self.reloader,
            self._workers,
            self.metrics,
            settings.hang_timeout_s,
            lambda: self.on_lost(),
        )
        self._memory = MemoryWatch(settings.max_memory_bytes, lambda: self.registry.looked, lambda: self.on_lost())
        self.administration = Administration(
            self.repository, self.registry, self.reloader, settings.request_timeout_s
        )
        self._watches: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin loading; the service answers at once, and is ready once its models are warm."""
        self._loop = asyncio.get_running_loop()
        self._workers.start()
        self.feedback_pool.submit(self._tell_of_feedback)
        interval_s = self.settings.reload_interval_s
        self._watches.append(asyncio.create_task(self.reloader.watch(interval_s)))
        if self.settings.hang_timeout_s:
            self._watches.append(asyncio.create_task(self._hangs.watch()))
        if self.settings.max_memory_bytes:
            self._watches.append(asyncio.create_task(self._memory.watch()))
        for keys in (self.keys, self.admin_keys):
            if keys is not None and interval_s:
                self._watches.append(asyncio.create_task(keys.watch(interval_s)))

    def _tell_of_feedback(self) -> None:
        """Say at once, and not at the first correction, that none can be stored; it may be mended meanwhile."""
        file = self.settings.feedback_file
        if file is not None and (trouble := FeedbackStore(file, self.settings.feedback_max_bytes).trouble()):
            logger.error("LANTERN_FEEDBACK_FILE: %s; no correction will be stored", trouble)

    def leave(self) -> None:
        """Become unready, so that load balancers look elsewhere; requests are still answered."""
        self.leaving = True
        for watch in self._watches:
            watch.cancel()

    def refuse(self) -> None:
        """Admit nothing more; what was admitted is still answered."""
        self.leave()
        for batcher in self._batchers():
            batcher.drain()

    async def drained(self) -> None:
        """Wait until everything admitted is answered."""
        await asyncio.gather(*(batcher.drained() for batcher in self._batchers()))

    def give_up(self) -> None:
        """Tell whoever still waits that there will be no answer."""
        for batcher in self._batchers():
            batcher.close()

    @property
    def open_items(self) -> int:
        """Items admitted and not yet answered."""
        return sum(batcher.open_tickets for batcher in self._batchers())

    async def stop(self) -> None:
        """End the watch, the workers and the pools; work that does not end is left behind."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self.reloader.close()
        self._shadowing.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.feedback_pool.shutdown(wait=False, cancel_futures=True)
        self.give_up()
        self._workers.close()
        await asyncio.to_thread(self._workers.join, LAST_WORK_S)

    async def figures(self) -> list[Family]:
        """What was measured, in every worker process."""
        own = self.metrics.figures()
        return own if self.siblings is None else await self.siblings.figures(own)

    def _batchers(self) -> list[Batcher]:
        live = [model.batcher for model in self.registry.everything_live()]
        return live + self.reloader.draining()

    def lose_device(self) -> None:
        """Refuse everything and leave, since nothing succeeds on the device any more; from any thread."""
        assert self._loop is not None, "a device is used by a service that was started"  # noqa: S101
        with suppress(RuntimeError):  # A loop that has stopped is about to be left.
            self._loop.call_soon_threadsafe(self._lose_device)

    def _lose_device(self) -> None:
        if not self.leaving:
            logger.critical("%s does not work any more: the process leaves, to be started anew", self.device)
        self.refuse()
        self.on_lost()

    def _load(self, bundle: Bundle) -> LoadedModel:
        settings, live = self.settings, self.registry.live
        beside = live.get(bundle.manifest.name)
        try:
            return load(
                bundle,
                self.device,
                settings.max_batch_size,
                settings.max_image_pixels,
                self._workers.threads,
                settings.precision,
                parse_operators(settings.allow_operators or ""),
                self._spare_time().pause if live else no_pause,
                beside.loaded if beside else None,
            )
        except DeviceLost:
            self.lose_device()
            raise

    def _spare_time(self) -> SpareTime:
        # So that no version is refused for pauses.
        most_s = self.settings.load_timeout_s / 2 or math.inf
        return SpareTime(lambda: self._workers.idle, most_s)

    def _make_batcher(self, loaded: LoadedModel) -> Batcher:
        name, device = loaded.bundle.manifest.name, str(loaded.device)

        def on_batch(size: int, seconds: float) -> None:
            self.metrics.batch_items.observe(size, name)
            self.metrics.batch_seconds.observe(seconds, name, device)

        batcher = Batcher(
            partial(decode, preparation=loaded.preparation),
            partial(answer, loaded),
            loaded.curve,
            self._crew(),
            capacity=self.settings.queue_capacity,
            max_batch_size=loaded.max_batch_size,
            delay_s=self.settings.queue_delay_ms / 1000,
            length=len if loaded.bundle.manifest.tokenize else None,
            bounded=loaded.run.bounded,
            on_batch=on_batch,
            lose_device=self.lose_device,
        )
        versions_of, metrics = self.registry.versions_of, self.metrics
        metrics.queue_items.labels(name).set_function(
            lambda: sum(model.batcher.open_tickets for model in versions_of(name))
        )
        metrics.queue_capacity.labels(name).set_function(
            lambda: sum(model.batcher.capacity for model in versions_of(name))
        )
        return batcher

    def _crew(self) -> Crew:
        """The CPU's threads do everything; a GPU's batches run on a thread of the model's own."""
        own = Workers(1, "infer").start() if self.device.type == "cuda" else self._workers
        return Crew(decoders=self._workers, runners=own)


def _trusted(settings: Settings) -> Callable[[], PublicKeys] | None:
    file = settings.trusted_keys_file
    if file is None:
        return None
    PublicKeys.read(file)  # One that cannot be used is better told at once.
    return partial(PublicKeys.read, file)


def _limiter(settings: Settings) -> RateLimiter | None:
    if not settings.rate_limit_per_s:
        return None
    return RateLimiter(settings.rate_limit_per_s, settings.rate_limit_burst)


def available_cpus(limit_file: Path = CGROUP_CPU_LIMIT) -> int:
    """CPUs that this process may use: its affinity, and in a container its cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit_file.read_text().split()
        return min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or a quota of "max"
        return cpus
