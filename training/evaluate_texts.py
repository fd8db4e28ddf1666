"""What written texts are worth, where each source may have several accepted targets."""

from collections.abc import Sequence


def error_rate(written: Sequence[str], accepted: Sequence[Sequence[str]]) -> float:
    """Return the share of texts that are none of their accepted targets, each taken whole."""
    wrong = sum(text not in targets for text, targets in zip(written, accepted, strict=True))
    return wrong / len(written)


def token_error_rate(written: Sequence[str], accepted: Sequence[Sequence[str]]) -> float:
    """Return edits over tokens, against the nearest target of each text; tokens are what white space separates.

    Source: Levenshtein, 1966; summed over the texts before dividing, as word and phone error rates are.
    """
    edits = tokens = 0
    for text, targets in zip(written, accepted, strict=True):
        said = text.split()
        distance, length = min((edit_distance(said, target.split()), -len(target.split())) for target in targets)
        edits, tokens = edits + distance, tokens - length
    return edits / max(1, tokens)


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and replacements that turn one into the other."""
    row = list(range(len(second) + 1))
    for index, left in enumerate(first, start=1):
        diagonal, row[0] = row[0], index
        for column, right in enumerate(second, start=1):
            cheapest = min(row[column] + 1, row[column - 1] + 1, diagonal + (left != right))
            diagonal, row[column] = row[column], cheapest
    return row[-1]
