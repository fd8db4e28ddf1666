"""Every Prometheus series of the service. Labels are bounded: models, versions, routes and codes that exist."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from app.memory import resident_bytes
from app.processes.merging import Family, Figures
from app.series import Counted, Distribution

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DISTANCES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
SHADOW_ITEMS = "lantern_shadow_items"
SHADOW_DISTANCE = "lantern_shadow_score_distance"
SHADOW_SECONDS = "lantern_shadow_seconds"
STAGES = {
    "decode": "From admission to a decoded example, for a request's slowest item.",
    "queue": "From a decoded example to its batch, for a request's slowest item.",
    "inference": "That its batch took, for a request's slowest item.",
}


class Metrics:
    """The series, in a registry of their own: two services in one process do not share them."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counted(
            "lantern_requests", "Requests answered.", ("model", "version", "route", "code"), own
        )
        self.request_seconds = Distribution(
            "lantern_request_duration_seconds",
            "From the request's first byte to its answer.",
            ("route",),
            SECONDS,
            own,
        )
        self.requests_in_flight = 0
        in_flight = Gauge("lantern_in_flight_requests", "Requests being answered.", registry=own)
        in_flight.set_function(lambda: self.requests_in_flight)
        memory = Gauge("process_resident_memory_bytes", "Physical memory that is held.", registry=own)
        memory.set_function(resident_bytes)
        self.items = Counted("lantern_items", "Items answered.", ("model", "version", "code"), own)
        self.stage_seconds = {
            stage: Distribution(f"lantern_{stage}_seconds", text, ("model",), SECONDS, own)
            for stage, text in STAGES.items()
        }
        self.batch_items = Distribution("lantern_batch_size", "Items in a batch.", ("model",), ITEMS, own)
        self.batch_seconds = Distribution(
            "lantern_batch_compute_seconds", "Time a batch took.", ("model", "device"), SECONDS, own
        )
        self.queue_items = Gauge("lantern_queue_items", "Items admitted and unanswered.", ["model"], registry=own)
        self.queue_capacity = Gauge("lantern_queue_capacity", "Most items admitted.", ["model"], registry=own)
        self.loads = Counter(
            "lantern_model_loads", "Versions loaded, or refused.", ["model", "result"], registry=own
        )
        self.load_seconds = Histogram(
            "lantern_model_load_seconds", "Verifying, loading and warming up a version.", ["model"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.candidate_share = Gauge(
            "lantern_candidate_share", "Share of the requests that a candidate answers, once live.",
            ["model", "version"], registry=own,
        )  # fmt: skip
        self.hangs = Counted("lantern_hung_batches", "Batches that did not come back.", ("model", "version"), own)
        self.shadow_items = Counted(
            SHADOW_ITEMS,
            "Items that a candidate was asked too: what came out.",
            ("model", "version", "result"),
            own,
        )
        self.shadow_distance = Distribution(
            SHADOW_DISTANCE,
            "Between the score of the answer and the candidate's of the same label or text.",
            ("model", "version"),
            DISTANCES,
            own,
        )
        self.shadow_seconds = Distribution(
            SHADOW_SECONDS,
            "From admission to the answer, of requests that both the current version and a candidate were asked.",
            ("model", "version", "of"),
            SECONDS,
            own,
        )
        self.live = Gauge("lantern_model_info", "1 for each live version.", ["model", "version"], registry=own)

    def observe_stages(self, model: str, timing_ms: Mapping[str, float]) -> None:
        """Record how long a request's slowest item spent in each stage."""
        for stage, seconds in self.stage_seconds.items():
            seconds.observe(timing_ms[stage] / 1000, model)

    def figures(self) -> list[Family]:
        """What was measured, to be sent and merged."""
        return [
            {
                "name": family.name,
                "text": family.documentation,
                "type": family.type,
                "samples": [(sample.name, sample.labels, sample.value) for sample in family.samples],
            }
            for family in self.registry.collect()
        ]

    def render(self) -> bytes:
        """The text that a Prometheus server scrapes."""
        return generate_latest(self.registry)


def render(figures: Figures) -> bytes:
    """The same text, of figures that were sent or merged."""
    registry = CollectorRegistry()
    registry.register(_Sent(figures))
    return generate_latest(registry)


class _Sent(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        for each in self._figures:
            family = Metric(each["name"], each["text"], each["type"])
            for name, labels, value in each["samples"]:
                family.add_sample(name, labels, value)
            yield family
