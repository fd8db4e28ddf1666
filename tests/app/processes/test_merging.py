"""The metrics of several worker processes, merged; and what a Prometheus server reads of them."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Metrics, render
from app.processes.merging import Figures, lasting, merge


def measured(*, requests: int, in_flight: int, version: str = "1") -> Figures:
    metrics = Metrics()
    for _ in range(requests):
        metrics.requests.count("shades", version, "/predict", "ok")
        metrics.request_seconds.observe(0.02, "/predict")
    metrics.requests_in_flight = in_flight
    metrics.queue_capacity.labels("shades").set(256)
    metrics.live.labels("shades", version).set(1)
    metrics.loads.labels("shades", "loaded").inc()
    # As it comes over the channel.
    figures: Figures = json.loads(json.dumps(metrics.figures()))
    return figures


def values(figures: Figures) -> dict[str, float]:
    return {
        " ".join((sample.name, *(label for _, label in sorted(sample.labels.items())))): sample.value
        for family in text_string_to_metric_families(render(figures).decode())
        for sample in family.samples
    }


def test_counters_histograms_and_gauges_are_summed_but_what_is_the_same_in_each() -> None:
    both = values(merge([measured(requests=3, in_flight=1), measured(requests=4, in_flight=2)]))
    assert both["lantern_requests_total ok shades /predict 1"] == 7
    assert both["lantern_request_duration_seconds_count /predict"] == 7
    assert both["lantern_request_duration_seconds_bucket 0.01 /predict"] == 0
    assert both["lantern_request_duration_seconds_bucket 0.025 /predict"] == 7
    assert round(both["lantern_request_duration_seconds_sum /predict"], 9) == 0.14
    assert both["lantern_in_flight_requests"] == 3
    assert both["lantern_queue_capacity shades"] == 512
    assert both["lantern_model_info shades 1"] == 1
    assert both["lantern_model_loads_total shades loaded"] == 2


def test_the_merged_text_of_one_process_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # It may be another from one look to the next.
    monkeypatch.setattr("app.metrics.resident_bytes", lambda: 1_000_000)
    metrics = Metrics()
    metrics.requests.count("shades", "1", "/predict", "ok")
    metrics.loads.labels("shades", "loaded").inc()
    metrics.load_seconds.labels("shades").observe(0.2)
    assert render(merge([metrics.figures()])) == metrics.render()


def test_versions_that_differ_stand_side_by_side() -> None:
    both = values(merge([measured(requests=1, in_flight=0), measured(requests=1, in_flight=0, version="2")]))
    assert both["lantern_model_info shades 1"] == both["lantern_model_info shades 2"] == 1


def test_what_a_dead_process_counted_lasts_and_what_it_held_does_not() -> None:
    dead = lasting(measured(requests=5, in_flight=3))
    both = values(merge([measured(requests=1, in_flight=1), dead]))
    assert both["lantern_requests_total ok shades /predict 1"] == 6
    assert both["lantern_in_flight_requests"] == 1
    assert both["lantern_queue_capacity shades"] == 256


def test_a_process_was_there_since_the_first_was() -> None:
    first, second = measured(requests=1, in_flight=0), measured(requests=1, in_flight=0)
    began = "lantern_model_loads_created shades loaded"
    assert values(merge([second, first]))[began] == values(first)[began]
