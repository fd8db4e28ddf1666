"""Examples by their key: what makes two of them the same."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Generic, TypeVar

from training.datasets.splitting import Part

Value = TypeVar("Value")
# Zero-width space, word joiner, byte order mark, marks of direction: around a text they are left from copying.
UNSEEN = "\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Where the tokenizer of words, `tokenizers.pre_tokenizers.Whitespace`, splits a text.
WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True, slots=True)
class Keyed(Generic[Value]):
    """An example, and what makes it the same as another.

    Attributes:
        key: The sha256 of its input.
        answer: Its label or target; another example of the same key may have another one.
        given: The part that its source puts it in; None where the source names no parts.
        value: Whatever the example is made of.
    """

    key: bytes
    answer: str
    given: Part | None
    value: Value


def trimmed(text: str) -> str:
    """Return `text` in NFC, with nothing around it that cannot be seen."""
    before, now = "", unicodedata.normalize("NFC", text)
    while now != before:
        before, now = now, now.strip().strip(UNSEEN)
    return now


def plain(text: str) -> str:
    """Return `text` as `trimmed` does, with every run of white space in it as one space."""
    return " ".join(trimmed(text).split())


def folded(text: str) -> str:
    """Return `text` as `plain` does, and without case."""
    return unicodedata.normalize("NFC", plain(text).casefold())


def spaced(text: str) -> str:
    """Return `text` with one space between its words and signs: `film 3!` and `film 3 !` become the same."""
    return " ".join(WORD.findall(text)) or text


def key_of(text: str) -> bytes:
    """Return the key of a text: 32 bytes, so that keys cost little beside the texts."""
    return hashlib.sha256(text.encode()).digest()
