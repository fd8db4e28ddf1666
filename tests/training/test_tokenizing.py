import json
import unicodedata
from collections import Counter
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers

from models.tokenization import BEGIN, END, SPECIAL_TOKENS, UNKNOWN, Tokenizer
from training.tokenizing import Kind, train_tokenizer

KINDS: tuple[Kind, ...] = get_args(Kind)
# What byte pairs start from; fewer tokens could not write anything.
BYTES = 256
TEXTS = ["the cat sat on the mat", "the dog sat, too.", "a cat's mat -- the mat!", "Übermut tut selten gut"] * 2


def trained(
    kind: Kind,
    texts: list[str] = TEXTS,
    vocabulary: int = 400,
    *,
    lowercase: bool = False,
    punctuation: bool = True,
) -> Tokenizer:
    return Tokenizer(train_tokenizer(texts, kind, vocabulary, lowercase=lowercase, punctuation=punctuation))


def again(tokenizer: Tokenizer, text: str) -> str:
    [ids] = tokenizer.encode_all([text])
    return tokenizer.decode(ids)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """What each token of a text writes alone."""
    [ids] = tokenizer.encode_all([text])
    return [tokenizer.decode([index]) for index in ids[1:-1]]


byte_pairs = trained("bpe")
chars = trained("chars")
whole_words = trained("words", punctuation=False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_stands_between_beginning_and_end(kind: Kind) -> None:
    ids = trained(kind).encode("the cat").tolist()
    assert (ids[0], ids[-1], ids.count(BEGIN), ids.count(END)) == (BEGIN, END, 1, 1)


@given(st.text())
@example("[PAD] and [END]")
@example(" two  spaces\n\tand lines \r\n")
@example("🏳️‍🌈 не только ASCII \x00")
def test_byte_pairs_write_any_text_again(text: str) -> None:
    assert again(byte_pairs, text) == normalizers.NFC().normalize_str(text)


def test_byte_pairs_know_every_text() -> None:
    [ids] = byte_pairs.encode_all(["日本語 \x7f"])
    assert UNKNOWN not in ids


def test_byte_pairs_merge_what_is_frequent() -> None:
    assert "the" in pieces(byte_pairs, "the")
    assert len(pieces(byte_pairs, "xqz")) == 3


@given(st.lists(st.sampled_from(["the", "cat", "sat,", "too.", "cat's", "--", "mat!"])))
def test_words_joined_by_spaces_are_the_text_again_without_splitting_punctuation(said: list[str]) -> None:
    assert again(whole_words, " ".join(said)) == " ".join(said)


def test_words_split_off_punctuation_unless_told_otherwise() -> None:
    assert pieces(trained("words"), "the dog sat, too.") == ["the", "dog", "sat", ",", "too", "."]
    assert pieces(whole_words, "the dog sat, too.") == ["the", "dog", "sat,", "too."]


@given(st.text(st.sampled_from(sorted(set("".join(TEXTS))))))
def test_characters_are_the_text_again_white_space_too(text: str) -> None:
    assert again(chars, text) == text
    assert pieces(chars, text) == list(text)


def test_a_line_break_is_a_character_too() -> None:
    assert again(trained("chars", ["a\nb\r\n"]), "b\r\n\na") == "b\r\n\na"


@pytest.mark.parametrize("kind", KINDS)
def test_letters_and_their_accents_are_one_however_they_were_typed(kind: Kind) -> None:
    tokenizer = trained(kind)
    composed, apart = (unicodedata.normalize(form, "Übermut") for form in ("NFC", "NFD"))
    assert composed != apart
    assert tokenizer.encode(apart).tolist() == tokenizer.encode(composed).tolist()
    assert again(tokenizer, apart) == composed


@pytest.mark.parametrize("kind", ["words", "chars"])
def test_what_was_not_seen_is_unknown_and_its_neighbours_are_not(kind: Kind) -> None:
    text = "the zebra sat" if kind == "words" else "thezsat"
    ids = trained(kind).encode(text).tolist()
    assert ids.count(UNKNOWN) == 1
    assert ids.index(UNKNOWN) == len(ids) // 2


@pytest.mark.parametrize(("kind", "vocabulary"), [("words", 8), ("words", 10), ("chars", 9), ("bpe", 270)])
def test_no_more_tokens_are_learnt_than_allowed(kind: Kind, vocabulary: int) -> None:
    assert trained(kind).size > vocabulary
    assert trained(kind, vocabulary=vocabulary).size == vocabulary


def test_byte_pairs_take_no_fewer_tokens_than_bytes() -> None:
    assert trained("bpe", vocabulary=8).size == len(SPECIAL_TOKENS) + BYTES


def test_the_most_frequent_words_are_kept() -> None:
    counted = Counter(" ".join(TEXTS).split())
    tokenizer = trained("words", vocabulary=len(SPECIAL_TOKENS) + 1, punctuation=False)
    assert pieces(tokenizer, " ".join(counted)) == [
        word if word == counted.most_common(1)[0][0] else "" for word in counted
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_capitals_are_read_as_small_letters_if_asked(kind: Kind) -> None:
    small = trained(kind, lowercase=True)
    assert small.encode("THE ÜBERMUT").tolist() == small.encode("the übermut").tolist()
    assert again(small, "THE CAT") == "the cat"
    kept = trained(kind)
    assert kept.encode("Übermut").tolist() != kept.encode("übermut").tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_bytes(kind: Kind) -> None:
    first, second = (train_tokenizer(iter(TEXTS), kind, 300, lowercase=True) for _ in range(2))
    assert first == second
    assert json.loads(first)["added_tokens"][0]["content"] == SPECIAL_TOKENS[0]


def test_a_word_that_is_written_like_a_mark_does_not_take_its_place() -> None:
    read = trained("words", ["[UNK] said [END]", "a [PAD] [BEGIN] b"], punctuation=False)
    assert tuple(read.vocabulary[: len(SPECIAL_TOKENS)]) == SPECIAL_TOKENS
    assert {"said", "a", "b"} <= set(read.vocabulary)


@pytest.mark.parametrize("kind", KINDS)
def test_no_texts_give_a_tokenizer_all_the_same(kind: Kind) -> None:
    assert trained(kind, []).size == len(SPECIAL_TOKENS) + (BYTES if kind == "bpe" else 0)
