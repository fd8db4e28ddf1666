"""Sentences that praise or blame, made by chance: a small problem for whatever reads texts."""

import csv
import random
from pathlib import Path

WORDS = {
    "praise": ("lovely", "superb", "charming", "brilliant", "delightful"),
    "blame": ("dreadful", "dull", "clumsy", "tedious", "awful"),
}
VERDICTS = tuple(WORDS)
COLUMNS = ("--text-column", "what they wrote", "--label-column", "verdict")


def sentence(chance: random.Random, verdict: str) -> str:
    """One word of seven tells."""
    words = chance.choices(("the", "film", "plot", "actor", "music"), k=6)
    words.insert(chance.randrange(6), chance.choice(WORDS[verdict]))
    return " ".join(words)


def write_table(file: Path, rows: int = 400) -> None:
    """Write a CSV of so many sentences and an empty one, under the names in `COLUMNS`."""
    chance = random.Random(0)  # noqa: S311 (no secret is made of it)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["what they wrote", "verdict"])
        for number in range(rows):
            verdict = VERDICTS[number % 2]
            writer.writerow([f"{sentence(chance, verdict)} {number}", verdict])
        writer.writerow(["", "praise"])
