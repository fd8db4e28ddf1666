import pytest

from app.processes.agreement import LAGGARD_S, Agreement
from models.current import Current

V1, V2, V3 = (Current(str(version), f"{version}" * 64) for version in (1, 2, 3))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agreement(clock: Clock) -> Agreement:
    """Of three workers that serve version 1 of a model."""
    agreement = Agreement(clock)
    for worker in (1, 2, 3):
        agreement.stand(worker, "m", V1)
    assert agreement.decide([]) == [("m", V1)]
    return agreement


def test_before_anybody_serves_the_first_decides(clock: Clock) -> None:
    agreement = Agreement(clock)
    agreement.stand(2, "m", V1)
    assert agreement.decide([]) == [("m", V1)]
    assert agreement.decide([]) == []
    assert agreement.decided == {"m": V1}


def test_a_version_is_decided_once_all_that_serve_could_serve_it(agreement: Agreement) -> None:
    for worker in (1, 2):
        agreement.stand(worker, "m", V2)
        assert agreement.decide([1, 2, 3]) == []
    agreement.stand(3, "m", V2)
    assert agreement.decide([1, 2, 3]) == [("m", V2)]


def test_who_does_not_serve_yet_is_not_waited_for(agreement: Agreement) -> None:
    agreement.stand(1, "m", V2)
    agreement.stand(3, "m", V2)
    assert agreement.decide([1, 3]) == [("m", V2)]


def test_a_late_worker_is_waited_for_so_long_and_no_longer(agreement: Agreement, clock: Clock) -> None:
    agreement.stand(1, "m", V2)
    clock.now_s = LAGGARD_S - 1
    agreement.stand(2, "m", V2)
    assert agreement.decide([1, 2, 3]) == []
    clock.now_s = LAGGARD_S
    assert agreement.decide([1, 2, 3]) == [("m", V2)]
    # The one that is late, for hours if it hangs, does not bring its old version back.
    for _ in range(3):
        clock.now_s += LAGGARD_S
        assert agreement.decide([1, 2, 3]) == []
    assert agreement.decided == {"m": V2}


def test_a_rollback_after_a_late_decision_is_decided(agreement: Agreement, clock: Clock) -> None:
    agreement.stand(1, "m", V2)
    agreement.stand(2, "m", V2)
    clock.now_s = LAGGARD_S
    assert agreement.decide([1, 2, 3]) == [("m", V2)]
    agreement.stand(1, "m", V1)
    agreement.stand(2, "m", V1)
    assert agreement.decide([1, 2, 3]) == [("m", V1)]


def test_what_no_serving_worker_stands_at_is_not_decided_however_long_it_stands(
    agreement: Agreement, clock: Clock
) -> None:
    agreement.stand(3, "m", V2)
    clock.now_s = 2 * LAGGARD_S
    assert agreement.decide([1, 2]) == []


def test_a_worker_that_is_gone_is_not_waited_for(agreement: Agreement) -> None:
    for worker in (1, 2):
        agreement.stand(worker, "m", V2)
    agreement.remove(3)
    assert agreement.decide([1, 2]) == [("m", V2)]


def test_a_refused_version_is_let_go_and_the_time_starts_anew(agreement: Agreement, clock: Clock) -> None:
    agreement.stand(1, "m", V2)
    assert agreement.refuse("m", V2)
    agreement.stand(3, "m", V2)
    assert agreement.decide([1, 2, 3]) == []
    clock.now_s = LAGGARD_S
    for worker in (1, 2, 3):
        agreement.refuse("m", V2)
        agreement.stand(worker, "m", V2)
    assert agreement.decide([1, 2, 3]) == []
    assert agreement.decided == {"m": V1}


def test_what_all_serve_is_not_let_go_because_one_cannot_load_it(agreement: Agreement) -> None:
    assert not agreement.refuse("m", V1)


def test_a_newer_version_takes_the_place_of_one_that_is_waited_with(agreement: Agreement) -> None:
    agreement.stand(1, "m", V2)
    agreement.stand(2, "m", V3)
    agreement.stand(1, "m", V3)
    agreement.stand(3, "m", V3)
    assert agreement.decide([1, 2, 3]) == [("m", V3)]


def test_a_rollback_is_decided_like_any_version(agreement: Agreement) -> None:
    for version in (V2, V1):
        for worker in (1, 2, 3):
            agreement.stand(worker, "m", version)
        assert agreement.decide([1, 2, 3]) == [("m", version)]


def test_models_are_decided_each_for_itself(agreement: Agreement) -> None:
    agreement.stand(1, "m", V2)
    for worker in (1, 2, 3):
        agreement.stand(worker, "other", V1)
    assert agreement.decide([1, 2, 3]) == [("other", V1)]
