"""Whether a server answers right: the same model and bytes must get the same label from every one of them."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.user_code import Classifier

# Where the answer's own JSON stands as a string within the protocol's, its quotes are escaped.
LABEL = re.compile(r'label\\*": *\\*"([^"\\]+)')


def expected_label(folder: Path, inputs: Sequence[bytes]) -> str:
    """Classify a request's first input here, without any server."""
    classifier = Classifier(folder, threads=1)
    (answer,) = classifier.predict([classifier.prepare(inputs[0])])
    label: str = answer["top"][0]["label"]
    return label


def check_label(server: str, answer: str, expected: str) -> None:
    """Compare the first label of a server's answer, whatever its protocol wraps around it.

    Raises:
        RuntimeError: It is another one, or there is none.
    """
    found = LABEL.search(answer)
    if found is None or found[1] != expected:
        raise RuntimeError(f"{server} should answer {expected!r}, and answers {answer[:300]}")
