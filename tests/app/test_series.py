"""Own counters and histograms are rendered as prometheus_client renders its own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.series import Counted, Distribution

BOUNDS = (0.001, 0.5, 1.0, 10.0)
values = st.one_of(st.sampled_from([0.0, *BOUNDS]), st.floats(-1, 100))
observations = st.lists(st.tuples(values, st.sampled_from("ab")), max_size=20)


def without_creation(rendered: bytes) -> list[bytes]:
    return [line for line in rendered.splitlines() if b"_created" not in line]


@given(observations)
def test_a_distribution_is_a_histogram(observed: list[tuple[float, str]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = Distribution("x_seconds", "A text.", ("label",), BOUNDS, ours)
    reference = Histogram("x_seconds", "A text.", ["label"], buckets=BOUNDS, registry=theirs)
    for value, label in observed:
        own.observe(value, label)
        reference.labels(label).observe(value)
    assert without_creation(generate_latest(ours)) == without_creation(generate_latest(theirs))


@given(st.lists(st.sampled_from("ab"), max_size=20))
def test_what_is_counted_is_a_counter(labels: list[str]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own, reference = Counted("x", "A text.", ("label",), ours), Counter("x", "A text.", ["label"], registry=theirs)
    for label in labels:
        own.count(label)
        reference.labels(label).inc()
    assert without_creation(generate_latest(ours)) == without_creation(generate_latest(theirs))
