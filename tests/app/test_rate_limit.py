import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_is_allowed_then_the_average() -> None:
    clock = Clock()
    limiter = RateLimiter(2, 3, clock=clock)
    assert [limiter.ask("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    clock.now_s += 0.5
    assert [limiter.ask("a") for _ in range(2)] == [0, 0.5]
    clock.now_s += 100
    assert [limiter.ask("a") for _ in range(4)] == [0, 0, 0, 0.5]


@pytest.mark.parametrize("per_s", [3, 7, 49])
def test_a_burst_is_allowed_to_its_last_request(per_s: int) -> None:
    limiter = RateLimiter(per_s, 5, clock=Clock())
    assert [limiter.ask("a") for _ in range(5)] == [0] * 5
    assert limiter.ask("a") > 0


def test_one_client_does_not_spend_what_another_has() -> None:
    limiter = RateLimiter(1, 1, clock=Clock())
    assert [limiter.ask(client) for client in ("a", "b", "a")] == [0, 0, 1]


def test_only_so_many_clients_are_remembered_the_quietest_forgotten_first() -> None:
    limiter = RateLimiter(1, 2, most_clients=2, clock=Clock())
    for client in ("a", "b", "a", "c"):
        limiter.ask(client)
    assert limiter.ask("a") > 0
    assert [limiter.ask("b"), limiter.ask("b")] == [0, 0]


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.floats(0, 2, allow_nan=False), max_size=200),
)
def test_no_more_than_burst_and_average_are_ever_allowed(per_s: int, burst: int, pauses_s: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(per_s, burst, clock=clock)
    allowed_s: list[float] = []
    for pause_s in pauses_s:
        clock.now_s += pause_s
        wait_s = limiter.ask("a")
        if wait_s:
            # The promise of Retry-After: after that long, a request is allowed.
            clock.now_s += wait_s * (1 + 1e-9)
            assert limiter.ask("a") == 0
        allowed_s.append(clock.now_s)
    for first, start_s in enumerate(allowed_s):
        for last in range(first, len(allowed_s)):
            assert last - first + 1 <= burst + per_s * (allowed_s[last] - start_s) + 1e-3
