from dataclasses import dataclass

import pytest

from app.processes.spreading import by_preference, to_move


@dataclass
class Worker:
    name: str
    open_connections: int = 0
    turn: int = 0
    fit: bool = True
    stalled: bool = False


def preferred(*workers: Worker) -> str:
    return by_preference(workers)[0].name


def test_the_worker_with_the_fewest_connections_is_next() -> None:
    assert preferred(Worker("a", 3), Worker("b", 2), Worker("c", 5)) == "b"


def test_of_equals_it_is_the_one_who_waited_longest() -> None:
    assert preferred(Worker("a", 2, turn=9), Worker("b", 2, turn=7), Worker("c", 2, turn=8)) == "b"


def test_whoever_is_not_ready_or_does_not_respond_comes_last_but_comes() -> None:
    loading, stalled = Worker("loading", fit=False), Worker("stalled", stalled=True)
    assert preferred(loading, stalled, Worker("busy", 90)) == "busy"
    # One that says it is loading is an answer; one that hangs is none.
    assert preferred(loading, stalled) == "loading"
    assert preferred(stalled) == "stalled"
    assert preferred(loading) == "loading"


def test_any_number_of_connections_is_spread_to_within_one() -> None:
    workers = [Worker(name) for name in "abc"]
    for turn in range(32):
        first = by_preference(workers)[0]
        first.open_connections, first.turn = first.open_connections + 1, turn
    assert sorted(worker.open_connections for worker in workers) == [10, 11, 11]


@pytest.mark.parametrize(
    ("has", "total", "workers", "moved"),
    [(32, 32, 2, 16), (16, 32, 2, 0), (17, 33, 2, 0), (5, 9, 3, 2), (0, 0, 1, 0)],
)
def test_what_is_above_an_even_share_moves(has: int, total: int, workers: int, moved: int) -> None:
    assert to_move(has, total, workers) == moved
