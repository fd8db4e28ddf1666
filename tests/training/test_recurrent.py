from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.training.graphs import assert_everything_learned, assert_gives_the_eager_logits
from training.architectures.recurrent import Recurrent, pool
from training.export import Exported, script

Cell = Literal["lstm", "gru"]
ATOL = 1e-5
VOCABULARY = 20


def network(cell: Cell, layers: int = 2, num_labels: int = 3, dropout: float = 0.5) -> Recurrent:
    torch.manual_seed(0)
    sizes = {"dim": 6, "hidden_size": 5, "layers": layers}
    return Recurrent(cell, VOCABULARY, num_labels, **sizes, dropout=dropout).eval()


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


both_cells = pytest.mark.parametrize("cell", ["lstm", "gru"])
both = {cell: network(cell) for cell in ("lstm", "gru")}
exported = {cell: Exported(script(network(cell))) for cell in ("lstm", "gru")}


@settings(max_examples=20)
@given(
    st.sampled_from(["lstm", "gru"]), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(2, 9)
)
def test_any_rows_give_one_logit_a_label(cell: Cell, layers: int, N: int, L: int, num_labels: int) -> None:
    logits_NK = network(cell, layers, num_labels)(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))


@both_cells
def test_a_row_is_judged_by_the_mean_and_the_largest_of_what_both_directions_saw(cell: Cell) -> None:
    one = both[cell]
    tokens_1L = rows(5)
    seen_LD = one.network(one.embedding(tokens_1L))[0][0]
    expected_K = one.head(torch.cat([seen_LD.mean(0), seen_LD.max(0).values]))
    assert torch.allclose(one(tokens_1L)[0], expected_K, atol=ATOL)


@both_cells
def test_the_order_of_tokens_matters_and_so_does_each(cell: Cell) -> None:
    tokens_1L = torch.tensor([[1, 5, 6, 7, 2]])
    logits_1K = both[cell](tokens_1L)
    assert not torch.allclose(both[cell](tokens_1L.flip(1)), logits_1K, atol=1e-3)
    for place in range(5):
        changed_1L = tokens_1L.clone()
        changed_1L[0, place] = 9
        assert not torch.allclose(both[cell](changed_1L), logits_1K, atol=1e-4)


@both_cells
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), padding=st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(cell: Cell, lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    together_NK = both[cell](torch.nn.functional.pad(tokens_NL, [0, padding]))
    alone = [both[cell](tokens_L[None, :length]) for tokens_L, length in zip(tokens_NL, lengths, strict=True)]
    assert torch.allclose(together_NK, torch.cat(alone), atol=ATOL)


@both_cells
def test_what_stands_in_the_paddings_place_of_the_table_is_never_read(cell: Cell) -> None:
    one = network(cell)
    before_NK = one(rows(2, 5, 1))
    with torch.no_grad():
        one.embedding.weight[0] = 1e6
    assert torch.equal(one(rows(2, 5, 1)), before_NK)


@both_cells
def test_all_but_padding_learns(cell: Cell) -> None:
    one = network(cell)
    cross_entropy(one(rows(2, 5, 1)), torch.tensor([0, 1, 2])).backward()
    assert_everything_learned(one)
    assert one.embedding.weight.grad is not None
    assert not one.embedding.weight.grad[0].any()


@both_cells
@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_graph_gives_the_eager_logits(cell: Cell, lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported[cell].scores, both[cell], rows(*lengths), ATOL)


@both_cells
def test_a_row_of_nothing_or_of_one_token_is_judged_and_harms_no_neighbour(cell: Cell) -> None:
    tokens_NL = torch.tensor([[0, 0, 0], [4, 0, 0], [4, 5, 6]])
    for run in (both[cell], exported[cell].scores):
        logits_NK = run(tokens_NL)
        assert logits_NK.isfinite().all()
        assert torch.allclose(logits_NK[0], both[cell].head.bias, atol=ATOL)
        assert torch.allclose(logits_NK[2], both[cell](tokens_NL[2:])[0], atol=ATOL)
        assert torch.allclose(run(tokens_NL[:1, :1])[0], logits_NK[0], atol=ATOL)


@both_cells
def test_a_row_of_nothing_breaks_no_gradient(cell: Cell) -> None:
    one = network(cell)
    one(torch.tensor([[0, 0], [4, 5]])).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in one.parameters())


@both_cells
def test_dropout_belongs_to_training(cell: Cell) -> None:
    one = network(cell, layers=1).train()
    assert not torch.equal(one(rows(5)), one(rows(5)))
    assert torch.equal(one.eval()(rows(5)), one(rows(5)))


def test_pooling_sees_only_what_is_read() -> None:
    features_NLD = torch.tensor([[[1.0, -1.0], [3.0, -5.0], [99.0, 99.0]]]).expand(2, -1, -1)
    read_NL = torch.tensor([[True, True, False], [False, False, False]])
    mean_ND, largest_ND = pool(features_NLD, read_NL)
    assert mean_ND.tolist() == [[2.0, -3.0], [0.0, 0.0]]
    assert largest_ND.tolist() == [[3.0, -1.0], [0.0, 0.0]]
