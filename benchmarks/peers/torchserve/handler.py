"""What a worker of TorchServe runs."""

from pathlib import Path
from typing import Any

from ts.context import Context
from user_code import Classifier


class Handler:
    """A classifier behind TorchServe."""

    def initialize(self, context: Context) -> None:
        """Load the model from the archive."""
        self.classifier = Classifier(Path(context.system_properties["model_dir"]), threads=1)

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
        """Classify a batch of raw bodies."""
        return self.classifier.predict([self.classifier.prepare(bytes(each["body"])) for each in data])
