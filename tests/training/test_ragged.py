from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.datasets.ragged import Ragged, batches_by_length

rows_of_tokens = st.lists(st.lists(st.integers(1, 2**31 - 1), max_size=8), min_size=1, max_size=20)


@given(rows_of_tokens, st.data())
def test_any_rows_come_back_padded_to_the_longest_of_them(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged(rows)
    asked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    padded_NL = ragged.padded(torch.tensor(asked))
    longest = max(len(rows[index]) for index in asked)
    assert (padded_NL.dtype, padded_NL.shape) == (torch.int64, (len(asked), longest))
    for index, padded_L in zip(asked, padded_NL.tolist(), strict=True):
        assert padded_L == rows[index] + [0] * (longest - len(rows[index]))


@given(rows_of_tokens)
def test_rows_and_lengths_are_counted(rows: list[list[int]]) -> None:
    ragged = Ragged(rows)
    assert len(ragged) == len(rows)
    assert ragged.length_N.tolist() == [len(row) for row in rows]


def test_there_may_be_no_rows() -> None:
    assert len(Ragged([])) == 0


def order_of(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


orders = st.builds(order_of, st.integers(1, 200), st.integers(0, 99))


@given(orders, st.integers(1, 9), st.integers(1, 5), st.data())
def test_batches_hold_every_row_once_and_are_full_but_the_last_of_a_chunk(
    order_N: Tensor, batch_size: int, batches_a_chunk: int, data: st.DataObject
) -> None:
    length_N = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=len(order_N), max_size=len(order_N))))
    batches = batches_by_length(order_N, length_N, batch_size, batches_a_chunk)
    assert sorted(index for batch_N in batches for index in batch_N.tolist()) == list(range(len(order_N)))
    # A chunk is whole batches, so only the very last one of the order can be short.
    short = len(order_N) % batch_size
    assert sorted(map(len, batches)) == sorted([batch_size] * (len(order_N) // batch_size) + [short] * bool(short))


@given(orders, st.integers(1, 9), st.data())
def test_within_a_chunk_no_batch_reaches_into_the_lengths_of_another(
    order_N: Tensor, batch_size: int, data: st.DataObject
) -> None:
    length_N = torch.tensor(data.draw(st.lists(st.integers(0, 30), min_size=len(order_N), max_size=len(order_N))))
    batches = batches_by_length(order_N, length_N, batch_size, batches_a_chunk=len(order_N) + 1)
    spans = sorted((int(length_N[batch_N].min()), int(length_N[batch_N].max())) for batch_N in batches)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_chunks_keep_rows_from_other_parts_of_the_order() -> None:
    order_N, length_N = order_of(1000, 3), torch.arange(1000)
    place_N = order_N.argsort()
    for batch_N in batches_by_length(order_N, length_N, 10, batches_a_chunk=10):
        assert len(set((place_N[batch_N] // 100).tolist())) == 1


def test_little_padding_is_left() -> None:
    length_N = torch.randint(1, 100, (5000,), generator=torch.Generator().manual_seed(0))

    def padding(batches: list[Tensor]) -> int:
        return sum(int((length_N[batch_N].max() - length_N[batch_N]).sum()) for batch_N in batches)

    order_N = order_of(5000, 1)
    assert padding(batches_by_length(order_N, length_N, 20)) < padding(list(order_N.split(20))) / 10


@pytest.mark.parametrize(("count", "batch_size"), [(1024, 128), (3008, 64)])
def test_when_a_batch_comes_says_nothing_of_its_length(count: int, batch_size: int) -> None:
    length_N = torch.randint(3, 30, (count,), generator=torch.Generator().manual_seed(0))
    epochs = [batches_by_length(order_of(count, seed), length_N, batch_size) for seed in range(200)]
    mean = length_N.double().mean()
    for place in (0, -1):
        means = [length_N[epoch[place]].double().mean() for epoch in epochs]
        assert abs(torch.stack(means).mean() - mean) < 2


def test_batches_come_in_a_random_order_that_is_the_orders_own() -> None:
    length_N = torch.arange(1000)
    first, same, other = (batches_by_length(order_of(1000, seed), length_N, 20) for seed in (1, 1, 2))
    shortest = [int(length_N[batch_N].min()) for batch_N in first]
    assert shortest not in (sorted(shortest), sorted(shortest, reverse=True))
    assert [batch_N.tolist() for batch_N in first] == [batch_N.tolist() for batch_N in same]
    assert shortest != [int(length_N[batch_N].min()) for batch_N in other]
