import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.training.graphs import assert_everything_learned, assert_gives_the_eager_logits
from training.architectures.bag import MULTIPLIER, Bag
from training.export import Exported, script

ATOL = 1e-5
VOCABULARY = 20
BUCKETS = 50


def network(longest: int = 3, num_labels: int = 3) -> Bag:
    torch.manual_seed(0)
    bag = Bag(VOCABULARY, num_labels, dim=6, dropout=0.5, longest=longest, buckets=BUCKETS).eval()
    with torch.no_grad():
        # As far from nothing as training makes them.
        bag.tokens.weight[1:].normal_()
        bag.grams.weight[1:].normal_()
    return bag


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def by_hand(bag: Bag, tokens: list[int]) -> Tensor:
    """The sum of all tokens and n-grams over the root of their number, gathered one by one."""
    found = [bag.tokens.weight[token] for token in tokens]
    for length in range(2, bag.longest + 1):
        for start in range(len(tokens) - length + 1):
            mixed = 0
            for token in tokens[start : start + length]:
                mixed = mixed * MULTIPLIER + token
            # The graph counts in 64 bits and lets them overflow.
            mixed = (mixed + 2**63) % 2**64 - 2**63
            found.append(bag.grams.weight[mixed % BUCKETS + 1])
    logits_K: Tensor = bag.head(torch.stack(found).sum(0) / len(found) ** 0.5)
    return logits_K


default = network()
exported = Exported(script(network()))


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(2, 9))
def test_any_rows_give_one_logit_a_label(longest: int, N: int, L: int, num_labels: int) -> None:
    logits_NK = network(longest, num_labels)(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))


@settings(max_examples=50)
@given(st.integers(1, 5), st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=9))
def test_a_row_is_judged_by_its_tokens_and_n_grams(longest: int, tokens: list[int]) -> None:
    bag = network(longest)
    assert torch.allclose(bag(torch.tensor([tokens]))[0], by_hand(bag, tokens), atol=1e-4)


def test_n_grams_tell_orders_apart_and_single_tokens_do_not() -> None:
    tokens_NL = torch.tensor([[4, 5, 6], [6, 5, 4]])
    forward_K, backward_K = network(longest=1)(tokens_NL)
    assert torch.allclose(forward_K, backward_K, atol=ATOL)
    forward_K, backward_K = network(longest=2)(tokens_NL)
    assert not torch.allclose(forward_K, backward_K, atol=1e-2)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    together_NK = default(torch.nn.functional.pad(tokens_NL, [0, padding]))
    alone = [default(tokens_L[None, :length]) for tokens_L, length in zip(tokens_NL, lengths, strict=True)]
    assert torch.allclose(together_NK, torch.cat(alone), atol=ATOL)


def test_all_but_padding_learns() -> None:
    bag = network()
    cross_entropy(bag(rows(2, 5, 1)), torch.tensor([0, 1, 2])).backward()
    assert_everything_learned(bag)
    for table in (bag.tokens, bag.grams):
        assert table.weight.grad is not None
        assert not table.weight.grad[0].any()


def test_padding_begins_as_nothing() -> None:
    bag = Bag(VOCABULARY, 3, dim=6, dropout=0.0)
    assert not bag.tokens.weight[0].any()
    assert not bag.grams.weight[0].any()
    assert bag.grams.weight.shape == (200_001, 6)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_graph_gives_the_eager_logits(lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported.scores, default, rows(*lengths), ATOL)


def test_a_row_of_nothing_or_of_one_token_is_judged_and_harms_no_neighbour() -> None:
    tokens_NL = torch.tensor([[0, 0, 0], [4, 0, 0], [4, 5, 6]])
    for run in (default, exported.scores):
        logits_NK = run(tokens_NL)
        assert logits_NK.isfinite().all()
        assert torch.allclose(logits_NK[0], default.head.bias, atol=ATOL)
        assert torch.allclose(logits_NK[2], default(tokens_NL[2:])[0], atol=ATOL)
        assert torch.allclose(run(tokens_NL[:1, :1])[0], logits_NK[0], atol=ATOL)


def test_dropout_belongs_to_training() -> None:
    bag = network().train()
    assert not torch.equal(bag(rows(5)), bag(rows(5)))
