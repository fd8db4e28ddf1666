"""LitServe with dynamic batching: as many workers for each model as cores, one thread each."""

from pathlib import Path
from typing import Any

import litserve
import torch
from fastapi import Request
from user_code import Classifier, models_in, path_of, read_options

options = read_options()


class Api(litserve.LitAPI):
    """A classifier behind LitServe."""

    def __init__(self, model: str, folder: Path) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.005, api_path=path_of(model))
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model in a worker."""
        self.classifier = Classifier(self.folder, threads=1)

    def decode_request(self, request: Request) -> torch.Tensor:
        """Take the uploaded file: for a form, LitServe hands over its fields."""
        return self.classifier.prepare(request["file"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Leave collating to the classifier."""
        return inputs

    def predict(self, x: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.classifier.predict(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give each request its own."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        [Api(model, folder) for model, folder in models_in(options.folder).items()],
        accelerator="cpu",
        workers_per_device=options.threads,
        timeout=60,
    )
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
