import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.tokenization import SPECIAL_TOKENS
from tests.training.graphs import assert_everything_learned, assert_gives_the_eager_logits, assert_rows_stand_alone
from training.architectures.character_bag import CharacterBag
from training.export import Exported, script

ATOL = 1e-5
BUCKETS = 500
# From one letter to more than there is room for the n-grams of.
WORDS = ["a", "of", "the", "film", "films", "fine", "unfilmable", "ninetenths", "incomprehensibilities", "schön"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS]
FIRST = len(SPECIAL_TOKENS)


def network(num_labels: int = 3) -> CharacterBag:
    torch.manual_seed(0)
    bag = CharacterBag(VOCABULARY, num_labels, dim=6, dropout=0.5, buckets=BUCKETS).eval()
    with torch.no_grad():
        # As far from nothing as training makes them.
        bag.grams.weight[1:].normal_()
    return bag


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, len(VOCABULARY), (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def grams_of(word: str) -> list[str]:
    """The word itself and its n-grams of three to six characters, with its beginning and end marked."""
    marked = f"<{word}>"
    shorter = [
        marked[start : start + length] for length in (3, 4, 5, 6) for start in range(len(marked) - length + 1)
    ]
    return [marked, *shorter]


def by_hand(bag: CharacterBag, words: list[str], most: int = 1000) -> Tensor:
    """The sum of all words' n-grams over the root of the number of words, gathered one by one."""
    places = [zlib.crc32(gram.encode()) % BUCKETS + 1 for word in words for gram in grams_of(word)[:most]]
    logits_K: Tensor = bag.head(bag.grams.weight[places].sum(0) / len(words) ** 0.5)
    return logits_K


default = network()
exported = Exported(script(network()))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 9))
def test_any_rows_give_one_logit_a_label(N: int, L: int, num_labels: int) -> None:
    logits_NK = network(num_labels)(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))


@given(st.lists(st.sampled_from([word for word in WORDS if len(word) < 10]), min_size=1, max_size=6))
def test_a_row_is_judged_by_what_is_in_its_words(words: list[str]) -> None:
    tokens_1L = torch.tensor([[VOCABULARY.index(word) for word in words]])
    assert torch.allclose(default(tokens_1L)[0], by_hand(default, words), atol=ATOL)


@pytest.mark.parametrize("word", ["unfilmable", "ninetenths", "incomprehensibilities"])
def test_of_a_long_word_the_first_thirty_two_n_grams_count(word: str) -> None:
    logits_K = default(torch.tensor([[VOCABULARY.index(word)]]))[0]
    assert torch.allclose(logits_K, by_hand(default, [word], most=32), atol=ATOL)
    assert not torch.allclose(logits_K, by_hand(default, [word]), atol=1e-2)


def test_the_order_of_words_says_nothing_and_the_marks_of_a_text_have_no_letters() -> None:
    tokens_NL = torch.tensor([[4, 6, 7], [7, 6, 4]])
    forward_K, backward_K = default(tokens_NL)
    assert torch.allclose(forward_K, backward_K, atol=ATOL)
    marks_K = default(torch.tensor([[1, 2, 3]]))[0]
    assert torch.allclose(marks_K, default.head.bias, atol=ATOL)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    assert_rows_stand_alone(default, tokens_NL, lengths, padding, ATOL)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_graph_gives_the_eager_logits(lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported.scores, default, rows(*lengths), ATOL)


def test_all_but_padding_learns() -> None:
    bag = network()
    cross_entropy(bag(rows(2, 5, 1)), torch.tensor([0, 1, 2])).backward()
    assert_everything_learned(bag)
    assert bag.grams.weight.grad is not None
    assert not bag.grams.weight.grad[0].any()


def test_padding_begins_as_nothing() -> None:
    bag = CharacterBag(VOCABULARY, 3, dim=6, dropout=0.0)
    assert not bag.grams.weight[0].any()
    assert bag.grams.weight.shape == (30_001, 6)


def test_a_row_of_nothing_is_judged_and_harms_no_neighbour() -> None:
    tokens_NL = torch.tensor([[0, 0, 0], [4, 0, 0], [4, 5, 6]])
    for run in (default, exported.scores):
        logits_NK = run(tokens_NL)
        assert torch.allclose(logits_NK[0], default.head.bias, atol=ATOL)
        assert torch.allclose(logits_NK[2], default(tokens_NL[2:])[0], atol=ATOL)
        assert torch.allclose(run(tokens_NL[:1, :1])[0], logits_NK[0], atol=ATOL)


def test_dropout_belongs_to_training() -> None:
    bag = network().train()
    assert not torch.equal(bag(rows(5)), bag(rows(5)))


def test_it_learns_an_ending_and_knows_it_of_words_never_seen() -> None:
    torch.manual_seed(0)
    stems = [f"{first}{vowel}{last}" for first in "bdfgklm" for vowel in "aeiou" for last in "nprt"]
    words = [stem + ending for stem in stems for ending in ("ing", "ed")]
    bag = CharacterBag([*SPECIAL_TOKENS, *words], 2, dim=4, dropout=0.0)
    tokens_N1 = FIRST + torch.arange(len(words))[:, None]
    labels_N = torch.arange(len(words)) % 2
    # Whole stems are held out, with both of their endings.
    seen_N = (torch.rand(len(stems)) < 0.6).repeat_interleave(2)
    optimizer = torch.optim.Adam(bag.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(bag(tokens_N1[seen_N]), labels_N[seen_N]).backward()
        optimizer.step()
    assert torch.equal(bag.eval()(tokens_N1[~seen_N]).argmax(1), labels_N[~seen_N])
