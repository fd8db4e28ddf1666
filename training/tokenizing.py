"""Tokenizers, trained on the training part only and saved with the model."""

from collections.abc import Iterable
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from models import tokenization
from models.tokenization import BEGIN, END, SPECIAL_TOKENS, UNKNOWN

Kind = Literal["words", "bpe", "chars"]
BEGIN_TOKEN, END_TOKEN, UNKNOWN_TOKEN = SPECIAL_TOKENS[BEGIN], SPECIAL_TOKENS[END], SPECIAL_TOKENS[UNKNOWN]
# Of words as people write them, far fewer are new; clauses without spaces nearly all are.
MOST_UNKNOWN = 0.3


def train_tokenizer(
    texts: Iterable[str], kind: Kind, vocabulary: int, *, lowercase: bool, punctuation: bool = True
) -> bytes:
    """Learn a vocabulary, and return it as the bytes of a `tokenizer.json`.

    Args:
        texts: The training part's.
        kind: `words` at white space; `bpe` byte pairs, which can write anything; `chars` one by one.
        vocabulary: Most tokens, the special ones included; the most frequent are kept.
        lowercase: Read capital letters as small ones.
        punctuation: Whether `words` splits off punctuation; without, words joined by spaces are the text again.

    Returns:
        A tokenizer whose texts begin with [BEGIN] and end with [END].

    Source: byte-pair encoding, Sennrich et al., arXiv:1508.07909, on bytes.
    """
    rules = _rules(kind, punctuation)
    normal = [normalizers.NFC(), normalizers.Lowercase()] if lowercase else [normalizers.NFC()]
    rules.normalizer = normalizers.Sequence(normal)
    rules.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN_TOKEN} $A {END_TOKEN}", special_tokens=[(BEGIN_TOKEN, BEGIN), (END_TOKEN, END)]
    )
    rules.train_from_iterator(map(_unmarked, texts), _trainer(kind, vocabulary))
    content = rules.to_str().encode()
    tokenization.Tokenizer(content)  # What a graph relies on is checked where it is made.
    return content


def _unmarked(text: str) -> str:
    # Of a word that is written like a mark the trainer would make a token in the mark's place.
    for mark in SPECIAL_TOKENS:
        text = text.replace(mark, " ")
    return text


def doubts(rules: bytes, validation: Iterable[str]) -> list[str]:
    """Return what a person should know of a tokenizer, a line each: whether it reads texts that it did not see.

    Args:
        rules: As `train_tokenizer` returns them.
        validation: Texts of the validation part.
    """
    rows = tokenization.Tokenizer(rules).encode_all(validation)
    # The marks of beginning and end say nothing.
    tokens = sum(len(ids) - 2 for ids in rows)
    share = sum(ids.count(UNKNOWN) for ids in rows) / max(tokens, 1)
    if share <= MOST_UNKNOWN:
        return []
    return [f"warning: {share:.0%} of the validation tokens are unknown; --tokens bpe can read any text"]


def _rules(kind: Kind, punctuation: bool) -> Tokenizer:
    if kind == "bpe":
        rules = Tokenizer(models.BPE())
        rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rules.decoder = decoders.ByteLevel()
        return rules
    rules = Tokenizer(models.WordLevel(unk_token=UNKNOWN_TOKEN))
    if kind == "chars":
        rules.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        rules.decoder = decoders.Fuse()
    else:
        rules.pre_tokenizer = pre_tokenizers.Whitespace() if punctuation else pre_tokenizers.WhitespaceSplit()
    return rules


def _trainer(kind: Kind, vocabulary: int) -> trainers.Trainer:
    special = list(SPECIAL_TOKENS)
    if kind == "bpe":
        return trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    return trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
