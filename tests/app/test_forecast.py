import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.crew import Crew
from app.forecast import Forecast
from app.latency import LatencyCurve
from app.workers import Workers


def forecast_of(curve: LatencyCurve, max_batch_size: int = 8, threads: int = 1) -> Forecast:
    workers = Workers(threads)
    return Forecast(curve, Crew(workers, workers), max_batch_size)


def flat() -> LatencyCurve:
    """Eight together take no longer than one."""
    return LatencyCurve(dict.fromkeys((1, 2, 4, 8), 1.0))


def test_items_are_cut_into_batches_of_the_best_size_that_may_be() -> None:
    assert forecast_of(flat()).run_s(16) == 2.0
    assert forecast_of(flat(), max_batch_size=4).run_s(16) == 4.0


def test_what_is_too_unlike_to_go_together_takes_more_batches() -> None:
    forecast = forecast_of(flat())
    forecast.learn_batch(8, 2)
    assert forecast.run_s(16) == 8.0


def test_no_batch_is_smaller_than_one_item() -> None:
    forecast = forecast_of(flat())
    for _ in range(100):
        forecast.learn_batch(64, 1)
    assert forecast.run_s(16) == 16.0


@pytest.mark.parametrize("size", [8, 1])
def test_what_was_held_against_batches_is_forgotten(size: int) -> None:
    forecast = forecast_of(flat())
    for _ in range(100):
        forecast.learn_batch(8, 2)
    for _ in range(60):
        forecast.learn_batch(size, size)
    assert forecast.run_s(16) == 2.0


@given(st.lists(st.integers(1, 64)))
def test_what_never_differs_in_length_is_cut_to_the_best_size(sizes: list[int]) -> None:
    forecast = forecast_of(flat())
    for size in sizes:
        forecast.learn_batch(size, size)
    assert forecast.run_s(8) == 1.0


def test_the_threads_share_what_a_request_asks() -> None:
    alone, four = forecast_of(flat(), max_batch_size=1), forecast_of(flat(), max_batch_size=1, threads=4)
    for forecast in (alone, four):
        forecast.learn_decoding(10.0)
    assert alone.own_s(4, idle=False) == pytest.approx(4 * 1.0 + 4.0)
    assert four.own_s(4, idle=False) == pytest.approx(1.0 + 1.0)
    assert four.own_s(5, idle=True) == 2.0


def test_an_idle_model_is_asked_only_what_no_batch_ever_beat() -> None:
    curve = flat()
    forecast = forecast_of(curve)
    curve.record(1, 500.0)
    assert forecast.own_s(1, idle=True) == 1.0
    assert forecast.own_s(1, idle=False) > 10
