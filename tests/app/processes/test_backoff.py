from app.processes.backoff import LONGEST_WAIT_S, STEADY_S, Backoff


def test_a_first_death_is_followed_at_once_and_quick_ones_after_it_later_and_later() -> None:
    backoff = Backoff()
    assert [backoff.wait_s(0.1) for _ in range(5)] == [0, 1, 2, 4, 8]
    assert [backoff.wait_s(0.1) for _ in range(100)][-1] == LONGEST_WAIT_S


def test_whoever_lived_for_long_is_replaced_at_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.wait_s(0.1)
    assert backoff.wait_s(STEADY_S) == 0
    assert backoff.wait_s(0.1) == 1
