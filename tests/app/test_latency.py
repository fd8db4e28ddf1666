import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.latency import LatencyCurve, buckets


@pytest.mark.parametrize(
    ("largest", "expected"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_buckets_are_powers_of_two_and_the_largest(largest: int, expected: list[int]) -> None:
    assert buckets(largest) == expected


@given(st.integers(1, 4096))
def test_buckets_reach_from_one_to_the_largest(largest: int) -> None:
    found = buckets(largest)
    assert (found[0], found[-1]) == (1, largest)
    assert found == sorted(set(found))


def test_the_best_size_is_the_smallest_that_is_nearly_as_fast_as_any() -> None:
    # Per second: 100, 160, 200, 201. Four at a time is within 5 % of eight, and waits half as long.
    assert LatencyCurve({1: 0.01, 2: 0.0125, 4: 0.02, 8: 0.0398}).best_size == 4


def test_the_best_size_follows_what_is_measured() -> None:
    curve = LatencyCurve({1: 0.01, 8: 0.02})
    assert curve.best_size == 8
    for _ in range(50):
        curve.record(8, 0.5)
    assert curve.best_size == 1


def test_a_slow_spell_is_forgotten_although_its_size_is_no_longer_chosen() -> None:
    curve = LatencyCurve({1: 0.010, 8: 0.020})
    for _ in range(5):
        curve.record(8, 1.0)
    assert curve.best_size == 1
    for _ in range(500):
        curve.record(1, 0.010)
    assert curve.best_size == 8


def test_sizes_between_the_measured_are_interpolated() -> None:
    curve = LatencyCurve({1: 0.010, 4: 0.040})
    assert curve.mean_s(2) == pytest.approx(0.020)
    assert curve.mean_s(8) == pytest.approx(0.080)


def test_a_size_below_the_smallest_measured_takes_its_time() -> None:
    assert LatencyCurve({4: 0.04}).mean_s(1) == 0.04


def test_many_items_take_as_long_as_their_batches() -> None:
    curve = LatencyCurve({1: 0.010, 4: 0.020})
    assert curve.work_s(0, 4) == 0
    assert curve.work_s(9, 4) == pytest.approx(0.020 * 2 + 0.010)
    assert curve.work_s(9, 1) == pytest.approx(0.010 * 9)


def test_the_least_time_never_grows() -> None:
    curve = LatencyCurve({1: 0.010})
    curve.record(1, 5.0)
    curve.record(1, 0.004)
    curve.record(1, 5.0)
    assert curve.least_s(1) == 0.004
    assert curve.mean_s(1) > 1


def test_a_copy_goes_on_by_itself_from_what_was_learned() -> None:
    curve = LatencyCurve({1: 0.010, 8: 0.020}, {2: {1: 0.006}})
    for _ in range(50):
        curve.record(8, 0.5)
    copied = curve.copied()
    assert (copied.best_size, copied.mean_s(8), copied.threads_for(1)) == (1, curve.mean_s(8), 2)
    known_s = copied.mean_s(1)
    curve.record(1, 9.0)
    assert copied.mean_s(1) == known_s


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 10)), max_size=40))
def test_whatever_is_recorded_the_best_size_is_one_that_was_warmed_up(records: list[tuple[int, float]]) -> None:
    curve = LatencyCurve(dict.fromkeys(buckets(64), 0.01))
    for size, seconds in records:
        curve.record(size, seconds)
        assert curve.best_size in buckets(64)
        assert curve.least_s(size) <= curve.mean_s(size) + 1e-9
