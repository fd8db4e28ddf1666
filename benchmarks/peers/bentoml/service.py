"""BentoML: one worker with adaptive batching, whose batches use every core; each model has an API of its own.

A batched API takes lists, so a request uploads its file as a list of one, in a multipart form. BentoML chooses the
delay itself, from what batches took; it refuses what it expects to take longer than `max_latency_ms`.
"""

from pathlib import Path
from typing import Any

import bentoml
from user_code import Classifier, models_in, path_of

arguments = bentoml.use_arguments()


folders = models_in(Path(arguments.folder))


class Classifiers:
    """Classifiers behind BentoML."""

    def __init__(self) -> None:
        self.classifiers = {model: Classifier(folder, int(arguments.threads)) for model, folder in folders.items()}


def api_of(model: str) -> Any:
    """Make the API of a model."""

    def predict(self: Classifiers, file: list[Path]) -> list[dict[str, Any]]:
        """Classify a batch of uploaded files."""
        classifier = self.classifiers[model]
        return classifier.predict([classifier.prepare(path.read_bytes()) for path in file])

    # BentoML knows APIs by their functions' names.
    predict.__name__ = f"predict_{model}"
    return bentoml.api(predict, route=path_of(model), batchable=True, max_batch_size=32, max_latency_ms=60_000)


Service = bentoml.service(
    type("Service", (Classifiers,), {f"predict_{model}": api_of(model) for model in folders}),
    name="classifier",
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
