import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.graphs import assert_gives_the_eager_logits, assert_rows_stand_alone
from training.architectures.naive_bayes import MULTIPLIER, NaiveBayes
from training.datasets.ragged import Ragged
from training.export import Exported, script

ATOL = 1e-4
VOCABULARY = 12
BUCKETS = 30
LABELS = 3
SMOOTHING = 0.5

tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6)
corpora = st.lists(
    st.tuples(tokens, st.integers(0, LABELS - 1), st.sampled_from([0.25, 1.0, 2.0])), min_size=1, max_size=8
)

CORPUS: list[tuple[list[int], int, float]] = [
    ([4, 5, 6], 0, 1.0),
    ([4, 4, 7, 4, 4], 1, 1.0),
    ([6, 5, 4, 8], 1, 0.5),
    ([9], 2, 1.0),
    ([5, 6, 5, 6, 9], 2, 2.0),
]


def counted(corpus: Sequence[tuple[list[int], int, float]] = CORPUS, num_labels: int = LABELS) -> NaiveBayes:
    rows, labels, weights = zip(*corpus, strict=True)
    bayes = NaiveBayes(VOCABULARY, num_labels, smoothing=SMOOTHING, buckets=BUCKETS)
    bayes.count(Ragged(rows), torch.tensor(labels), torch.tensor(weights))
    return bayes.eval()


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def features(row: list[int]) -> set[int]:
    """A row's tokens, and its pairs by the number of their bucket."""
    pairs = pairwise(row)
    return {*row, *(VOCABULARY + (first * MULTIPLIER + second) % BUCKETS for first, second in pairs)}


def by_hand(corpus: Sequence[tuple[list[int], int, float]], row: list[int]) -> list[float]:
    """Half the sum of the log-probability ratios of a row's features, counted one by one."""
    count: dict[tuple[int, int], float] = defaultdict(lambda: SMOOTHING)
    for counted_row, label, weight in corpus:
        for feature in features(counted_row):
            count[feature, label] += weight
    seen = features(row) & {feature for feature, _ in count}
    everything = range(VOCABULARY + BUCKETS)
    total = [sum(count[feature, label] for feature in everything) for label in range(LABELS)]

    def ratio(feature: int, label: int) -> float:
        others = [other for other in range(LABELS) if other != label]
        share = count[feature, label] / total[label]
        others_share = sum(count[feature, other] for other in others) / sum(total[other] for other in others)
        return math.log(share / others_share)

    return [sum(ratio(feature, label) for feature in seen) / 2 for label in range(LABELS)]


default = counted()
exported = Exported(script(counted()))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 9))
def test_any_rows_give_one_logit_a_label(N: int, L: int, num_labels: int) -> None:
    logits_NK = counted([([4, 5], 0, 1.0), ([6], 1, 1.0)], num_labels)(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))


@given(corpora, tokens)
def test_the_logits_are_those_of_counting_by_hand(
    corpus: list[tuple[list[int], int, float]], row: list[int]
) -> None:
    logits_K = counted(corpus)(torch.tensor([row]))[0]
    assert logits_K.tolist() == pytest.approx(by_hand(corpus, row), abs=ATOL)


def test_how_often_a_feature_occurs_in_a_row_changes_nothing() -> None:
    once_K, often_K = default(torch.tensor([[4, 4, 0, 0, 0], [4, 4, 4, 4, 4]]))
    assert torch.equal(once_K, often_K)
    repetitive = counted([([4, 4, 4, 4], 0, 1.0), ([5], 1, 1.0)])
    assert torch.equal(repetitive.ratio_FK, counted([([4, 4], 0, 1.0), ([5], 1, 1.0)]).ratio_FK)


def test_labels_count_as_shares_that_are_whole() -> None:
    corpus_rows, labels, weights = zip(*CORPUS, strict=True)
    bayes = NaiveBayes(VOCABULARY, LABELS, smoothing=SMOOTHING, buckets=BUCKETS)
    bayes.count(Ragged(corpus_rows), one_hot(torch.tensor(labels), LABELS).float(), torch.tensor(weights))
    assert torch.allclose(bayes.ratio_FK, default.ratio_FK, atol=ATOL)


def test_a_row_of_two_labels_counts_as_a_part_of_a_row_of_each() -> None:
    bayes = NaiveBayes(VOCABULARY, LABELS, smoothing=SMOOTHING, buckets=BUCKETS)
    bayes.count(
        Ragged([[4, 5], [6]]), torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([2.0, 1.0])
    )
    split = counted([([4, 5], 0, 0.5), ([4, 5], 1, 1.5), ([6], 2, 1.0)])
    assert torch.allclose(bayes.ratio_FK, split.ratio_FK, atol=ATOL)


def test_what_was_counted_before_is_forgotten() -> None:
    bayes = counted([([7, 8], 2, 5.0)])
    corpus_rows, labels, weights = zip(*CORPUS, strict=True)
    bayes.count(Ragged(corpus_rows), torch.tensor(labels), torch.tensor(weights))
    assert torch.equal(bayes.ratio_FK, default.ratio_FK)


def test_how_much_is_counted_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.architectures.naive_bayes.COUNTED_AT_ONCE", 7)
    assert torch.allclose(counted().ratio_FK, default.ratio_FK, atol=ATOL)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that anything makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        sizes = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.size = max(self.size, *sizes, 0)
        return made


def test_with_many_labels_nothing_larger_than_the_table_is_made() -> None:
    K, N, L = 2000, 64, 50
    bayes = NaiveBayes(VOCABULARY, K, buckets=BUCKETS)
    table = bayes.ratio_FK.untyped_storage().nbytes()
    tokens_NL = rows(*[L] * N)
    with Largest() as largest:  # type: ignore[no-untyped-call]  # torch does not say what it makes
        bayes.count(Ragged(tokens_NL.tolist()), torch.arange(N), torch.ones(N))
        logits_NK = bayes(tokens_NL)
    assert largest.size <= max(table, logits_NK.untyped_storage().nbytes())
    # As numbers for each token and label they would have been.
    assert largest.size < N * L * K


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    assert_rows_stand_alone(default, tokens_NL, lengths, padding, ATOL)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_graph_gives_the_eager_logits(lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported.scores, default, rows(*lengths), ATOL)


def test_a_row_of_nothing_or_of_what_was_never_seen_says_nothing() -> None:
    tokens_NL = torch.tensor([[0, 0], [10, 0], [4, 5]])
    for run in (default, exported.scores):
        logits_NK = run(tokens_NL)
        assert not logits_NK[:2].any()
        assert torch.allclose(logits_NK[2], default(tokens_NL[2:])[0], atol=ATOL)
        assert not run(tokens_NL[:1, :1]).any()


def test_it_learns_which_of_two_words_comes_first() -> None:
    """The same words make up both labels' rows: only pairs tell them apart."""
    generator = torch.Generator().manual_seed(0)
    filler_N3 = torch.randint(6, VOCABULARY, (400, 3), generator=generator)
    labels_N = torch.arange(400) % 2
    pair_N2 = torch.tensor([[4, 5], [5, 4]])[labels_N]
    tokens_NL = torch.cat([filler_N3[:, :1], pair_N2, filler_N3[:, 1:]], dim=1)
    # Enough buckets that the pairs that tell have their own.
    bayes = NaiveBayes(VOCABULARY, 2, buckets=10_000)
    bayes.count(Ragged(tokens_NL[:200].tolist()), labels_N[:200], torch.ones(200))
    assert torch.equal(bayes(tokens_NL[200:]).argmax(1), labels_N[200:])
