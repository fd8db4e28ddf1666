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


def label_in(answer: str) -> str | None:
    """Find the first label of a server's answer, whatever its protocol wraps around it; None without one."""
    found = LABEL.search(answer)
    return found[1] if found else None
