"""BentoML: one worker with adaptive batching, whose batches use every core.

A batched API takes lists, so a request uploads its file as a list of one, in a multipart form. BentoML chooses the
delay itself, from what batches took; it refuses what it expects to take longer than `max_latency_ms`.
"""

from pathlib import Path
from typing import Any

import bentoml
from user_code import Classifier

arguments = bentoml.use_arguments()


@bentoml.service(name="classifier", workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    """A classifier behind BentoML."""

    def __init__(self) -> None:
        self.classifier = Classifier(Path(arguments.folder), int(arguments.threads))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, file: list[Path]) -> list[dict[str, Any]]:
        """Classify a batch of uploaded files."""
        return self.classifier.predict([self.classifier.prepare(path.read_bytes()) for path in file])
