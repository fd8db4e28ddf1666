import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.correction import DEVIATIONS, HALVED_IN_S, MOST, Correction


def test_nothing_is_corrected_before_anything_is_learned() -> None:
    assert Correction().factor(100.0) == 1.0


def test_what_comes_true_needs_no_correction() -> None:
    correction = Correction()
    for expected_s in (0.1, 5.0, 0.3):
        correction.learn(expected_s, expected_s, 0.0)
    assert correction.factor(0.0) == pytest.approx(1.0)


def test_what_always_takes_longer_is_expected_to() -> None:
    correction = Correction()
    for expected_s in (0.1, 5.0, 0.3):
        correction.learn(expected_s, 1.5 * expected_s, 0.0)
    assert correction.factor(0.0) == pytest.approx(1.5)


def test_of_waits_that_vary_nearly_all_are_shorter_than_expected() -> None:
    chance, correction = random.Random(0), Correction()  # noqa: S311 (no secret is made of it)
    longer = 0
    for _ in range(5000):
        taken_s = max(0.0, chance.gauss(1.3, 0.1))
        longer += taken_s > correction.factor(0.0)
        correction.learn(1.0, taken_s, 0.0)
    assert longer < 0.01 * 5000
    assert correction.factor(0.0) < 1.3 + 2 * DEVIATIONS * 0.1


def test_of_waits_that_end_with_a_batch_on_a_machine_that_slows_down_nearly_all_are_shorter() -> None:
    chance, correction = random.Random(0), Correction()  # noqa: S311 (no secret is made of it)
    longer = 0
    for number in range(5000):
        slowly = 1.3 if number % 500 < 100 else 1.0
        taken_s = slowly * chance.choice([0.9, 1.0, 1.0, 1.0, 1.2, 1.4])
        longer += taken_s > correction.factor(0.0)
        correction.learn(1.0, taken_s, 0.0)
    assert longer < 0.01 * 5000


def test_short_waits_say_little_of_long_ones() -> None:
    correction = Correction()
    correction.learn(10.0, 10.0, 0.0)
    correction.learn(0.001, 0.1, 0.0)
    assert correction.factor(0.0) < 1.1


def test_what_was_learned_is_forgotten() -> None:
    correction = Correction()
    correction.learn(1.0, 2.0, 0.0)
    assert correction.factor(HALVED_IN_S) == pytest.approx(1.5)
    assert correction.factor(100 * HALVED_IN_S) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0, 1e3))))
def test_it_stays_within_its_bounds(waits: list[tuple[float, float]]) -> None:
    correction = Correction()
    for expected_s, taken_s in waits:
        correction.learn(expected_s, taken_s, 0.0)
    assert 1.0 <= correction.factor(0.0) <= MOST
