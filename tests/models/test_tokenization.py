import json
import threading
import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rules
from tokenizers import models, pre_tokenizers

from models.errors import TextEmpty, TextTooLong, TextUnfit, TokenizerInvalid
from models.tokenization import BEGIN, END, PAD, SPECIAL_TOKENS, UNKNOWN, Tokenizer, pad
from tests.bundles import tokenizer_json
from training.tokenizing import train_tokenizer

words = Tokenizer(tokenizer_json())
letters = Tokenizer(train_tokenizer(["abc [PADEBGINUK]"], "chars", 100, lowercase=False))
known = st.sampled_from(["a", "bad", "good", "film", "fine"])


def content(**changes: Any) -> bytes:
    fields: dict[str, Any] = json.loads(tokenizer_json())
    return json.dumps(fields | changes).encode()


def rules_of(tokens: tuple[str, ...]) -> bytes:
    rules = Rules(
        models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=SPECIAL_TOKENS[UNKNOWN])
    )
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return rules.to_str().encode()


@given(st.lists(known, min_size=1))
def test_known_words_come_back_from_their_tokens(said: list[str]) -> None:
    ids_L = words.encode("  ".join(said))
    assert (ids_L.dtype, ids_L.shape) == (torch.int64, (len(said) + 2,))
    assert words.decode(ids_L.tolist()) == " ".join(said)


def test_a_text_stands_between_its_beginning_and_its_end() -> None:
    ids = words.encode("good film").tolist()
    assert (ids[0], ids[-1]) == (BEGIN, END)
    assert all(UNKNOWN < index < words.size for index in ids[1:-1])


def test_every_token_is_counted_the_special_ones_too() -> None:
    assert words.size == len(SPECIAL_TOKENS) + 5


def test_the_vocabulary_is_in_the_order_of_the_ids() -> None:
    assert words.vocabulary[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)
    assert len(words.vocabulary) == words.size
    assert [words.vocabulary[index] for index in words.encode("bad film").tolist()[1:-1]] == ["bad", "film"]


def test_an_unknown_word_is_the_unknown_token_and_writes_nothing() -> None:
    ids = words.encode("good xyzzy film").tolist()
    assert ids[2] == UNKNOWN
    assert ids.count(UNKNOWN) == 1
    assert words.decode(ids) == "good film"


@given(st.lists(known, min_size=1), st.data())
def test_special_tokens_write_nothing_wherever_they_stand(said: list[str], data: st.DataObject) -> None:
    ids = words.encode(" ".join(said)).tolist()
    place = data.draw(st.integers(0, len(ids)))
    special = data.draw(st.lists(st.sampled_from([PAD, BEGIN, END, UNKNOWN])))
    assert words.decode(ids[:place] + special + ids[place:]) == " ".join(said)


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_a_text_cannot_speak_in_special_tokens(name: str) -> None:
    text = f"a{name}b"
    ids = letters.encode(text).tolist()
    assert ids[1:-1] == [letters.encode(letter).tolist()[1] for letter in text]
    assert letters.decode(ids) == text


@pytest.mark.parametrize("text", ["", " ", "\n\t\r", "\u2003\u00a0", "\x1c"])
def test_a_text_of_nothing_but_white_space_is_refused(text: str) -> None:
    with pytest.raises(TextEmpty, match="empty"):
        words.encode(text, 3, truncate=True)


def test_a_text_may_have_as_many_tokens_as_allowed_and_no_more() -> None:
    assert len(words.encode("good film", 4)) == 4
    with pytest.raises(TextTooLong, match="has 4 tokens; the model takes at most 3"):
        words.encode("good film", 3)


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5])
def test_a_longer_text_is_cut_at_the_limit_if_asked(max_tokens: int) -> None:
    whole_L = words.encode("good film")
    assert torch.equal(words.encode("good film", max_tokens, truncate=True), whole_L[:max_tokens])


@given(st.lists(st.text(st.sampled_from("ab \ng[PADEN]"), max_size=12), max_size=5))
def test_many_texts_get_the_tokens_that_each_gets_alone(texts: list[str]) -> None:
    alone = [letters.encode(text).tolist() if text.strip() else None for text in texts]
    together = letters.encode_all(texts)
    assert [ids if text.strip() else None for text, ids in zip(texts, together, strict=True)] == alone


def test_a_text_of_nothing_among_many_is_its_beginning_and_end() -> None:
    assert words.encode_all(["", " "]) == [[BEGIN, END]] * 2


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"\xff\xfe",
        tokenizer_json()[:-20],
        content(model=None),
        content(model={"type": "WordLevel", "vocab": {}}),
        content(pre_tokenizer={"type": "Divination"}),
        content(post_processor=7),
    ],
)
def test_a_damaged_file_is_refused(damaged: bytes) -> None:
    with pytest.raises(TokenizerInvalid, match="cannot be read"):
        Tokenizer(damaged)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_named_refusal(damaged: bytes) -> None:
    with pytest.raises(TokenizerInvalid):
        Tokenizer(damaged)


@pytest.mark.parametrize(
    "tokens",
    [
        (*SPECIAL_TOKENS[1:], "[PAD]", "good"),
        ("[PAD]", "[END]", "[BEGIN]", "[UNK]", "good"),
        ("good", *SPECIAL_TOKENS),
        ("[PAD]", "[BEGIN]", "[END]", "good", "[UNK]"),
        ("<pad>", "<s>", "</s>", "[UNK]"),
        ("[UNK]",),
        SPECIAL_TOKENS[:3],
    ],
)
def test_the_special_tokens_must_stand_in_their_places(tokens: tuple[str, ...]) -> None:
    with pytest.raises(TokenizerInvalid, match="begins with"):
        Tokenizer(rules_of(tokens))


def test_other_rules_will_do_if_the_special_tokens_stand_in_their_places() -> None:
    assert Tokenizer(rules_of((*SPECIAL_TOKENS, "good"))).encode("good xyzzy").tolist() == [4, UNKNOWN]


def test_padding_and_truncation_in_the_file_are_ignored() -> None:
    rules = Rules.from_buffer(tokenizer_json())
    rules.enable_padding(length=20, pad_id=UNKNOWN, pad_token=SPECIAL_TOKENS[UNKNOWN])
    rules.enable_truncation(3)
    assert len(rules.encode("good").ids) == 20
    assert len(rules.encode("good film").ids) == 20
    assert rules.encode("good film").ids.count(UNKNOWN) == 17
    other = Tokenizer(rules.to_str().encode())
    for text in ("good", "a good film a good film"):
        assert torch.equal(other.encode(text), words.encode(text))
    assert other.encode_all(["good", "good film"]) == words.encode_all(["good", "good film"])


rows = st.lists(st.integers(1, 2**40), max_size=9).map(lambda ids: torch.tensor(ids, dtype=torch.int64))


@given(st.lists(rows, min_size=1, max_size=6))
def test_rows_are_filled_up_with_padding_to_the_longest(each: list[torch.Tensor]) -> None:
    padded_NL = pad(each)
    assert (padded_NL.dtype, padded_NL.shape) == (torch.int64, (len(each), max(map(len, each))))
    for row_L, padded_L in zip(each, padded_NL, strict=True):
        assert torch.equal(padded_L[: len(row_L)], row_L)
        assert not padded_L[len(row_L) :].any()


def test_a_text_that_the_rules_give_up_on_is_refused_and_harms_nothing() -> None:
    # Each further letter doubles the ways to read it.
    split = {"type": "Split", "pattern": {"Regex": "(a|a)+b"}, "behavior": "Isolated", "invert": False}
    tokenizer = Tokenizer(content(pre_tokenizer=split))
    with pytest.raises(TextUnfit, match="tokenizer"):
        tokenizer.encode("a" * 40)
    assert len(tokenizer.encode("good")) > 0


def test_others_get_a_turn_while_a_long_text_is_read() -> None:
    tokenizer, longest_s, done = Tokenizer(tokenizer_json()), 0.0, threading.Event()

    def watch() -> None:
        nonlocal longest_s
        last_s = time.perf_counter()
        while not done.wait(0.001):
            longest_s, last_s = max(longest_s, time.perf_counter() - last_s), time.perf_counter()

    watching = threading.Thread(target=watch)
    watching.start()
    text, start_s = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}" * 1_000_000, time.perf_counter()
    tokenizer.encode(text)
    took_s = time.perf_counter() - start_s
    done.set()
    watching.join()
    assert longest_s < took_s / 2
