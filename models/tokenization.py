"""Text <-> token ids, by the `tokenizer.json` that travels with a model. Axes: L tokens.

The tokenizer is Hugging Face's `tokenizers`: the same object in training and in serving, and the format that other
tools read. TorchScript's strings are bytes without normalisation or regular expressions, so it stays outside the
graph.
"""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer as Rules
from torch import Tensor

from models.errors import TensorUnfit, TextEmpty, TextTooLong, TextUnfit, TokenizerInvalid

Ids = TypeVar("Ids", list[int], NDArray[np.int64])

# What every tokenizer of a bundle has in these places; graphs rely on it.
SPECIAL_TOKENS = ("[PAD]", "[BEGIN]", "[END]", "[UNK]")
PAD, BEGIN, END, UNKNOWN = range(len(SPECIAL_TOKENS))


class Tokenizer:
    """The rules of a `tokenizer.json`.

    Args:
        content: The file's bytes.

    Raises:
        TokenizerInvalid: They are no tokenizer, or its first tokens are not the special ones.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._rules = Rules.from_buffer(content)
            self._rules.no_padding()
            self._rules.no_truncation()
            # A text that says [PAD] means those five characters.
            self._rules.encode_special_tokens = True
        except Exception as error:  # the library raises bare Exception
            raise TokenizerInvalid(f"the tokenizer cannot be read: {error}") from error
        found = tuple(self._rules.id_to_token(index) for index in range(len(SPECIAL_TOKENS)))
        if found != SPECIAL_TOKENS:
            raise TokenizerInvalid(f"the tokenizer begins with {found}, not with {SPECIAL_TOKENS}")
        self._try()

    def _try(self) -> None:
        try:
            self._rules.encode("probe")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # damaged rules make the library panic, which is no Exception
            raise TokenizerInvalid(f"the tokenizer fails on a text: {error}") from error

    @property
    def size(self) -> int:
        """Number of tokens it knows."""
        return self._rules.get_vocab_size()

    @property
    def vocabulary(self) -> list[str]:
        """Its tokens, in the order of their ids."""
        return [str(self._rules.id_to_token(index)) for index in range(self.size)]

    def encode(self, text: str, max_tokens: int | None = None, *, truncate: bool = False) -> Tensor:
        """Return a text's token ids, int64 of shape L, with the special tokens that its rules add.

        Args:
            text: Must hold more than white space.
            max_tokens: Most tokens; None sets no limit.
            truncate: Cut what is longer instead of refusing it.

        Raises:
            TextEmpty: There is nothing to read.
            TextTooLong: It has more tokens than allowed.
        """
        if not text.strip():
            raise TextEmpty("the text is empty")
        ids = _limited(self._ids_of(text), max_tokens, truncate=truncate)
        return torch.tensor(ids, dtype=torch.int64)

    def check(self, ids: NDArray[np.int64], max_tokens: int | None = None, *, truncate: bool = False) -> Tensor:
        """Return token ids that somebody else found, as `encode` does; padding at their end is left out.

        Args:
            ids: Of shape L.
            max_tokens: As of `encode`.
            truncate: As of `encode`.

        Raises:
            TextEmpty: There is nothing but padding.
            TensorUnfit: One is none of the vocabulary's.
            TextTooLong: They are more than allowed.
        """
        kept = np.trim_zeros(ids, "b")
        if not len(kept):
            raise TextEmpty("the text has no tokens")
        if kept.min() <= PAD or kept.max() >= self.size:
            raise TensorUnfit(f"a token id is not within 1 to {self.size - 1}; {PAD} only pads, at the end")
        return torch.from_numpy(np.array(_limited(kept, max_tokens, truncate=truncate)))

    def _ids_of(self, text: str) -> list[int]:
        try:
            # As a batch of one: for that it gives up the interpreter's lock, which it else keeps to the end.
            return list(self._rules.encode_batch_fast([text])[0].ids)
        except Exception:
            raise
        except BaseException as error:  # A panic in Rust is no Exception, and would end the thread.
            raise TextUnfit(f"the model's tokenizer cannot take the text apart: {error}") from None

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the token ids of many texts, without any limit; on all processors."""
        return [encoding.ids for encoding in self._rules.encode_batch_fast(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; special tokens give none."""
        return self._rules.decode([index for index in ids if index > UNKNOWN])


def _limited(ids: Ids, max_tokens: int | None, *, truncate: bool) -> Ids:
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    if not truncate:
        raise TextTooLong(f"the text has {len(ids)} tokens; the model takes at most {max_tokens}")
    return ids[:max_tokens]


def pad(rows: Iterable[Tensor]) -> Tensor:
    """Stack rows of different lengths, filled up with 0, as int64 of shape NL."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=PAD)
