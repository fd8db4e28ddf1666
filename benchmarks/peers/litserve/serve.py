"""LitServe with dynamic batching: as many workers as cores, one thread each."""

from typing import Any

import litserve
import torch
from fastapi import Request
from user_code import Classifier, read_options

options = read_options()


class Api(litserve.LitAPI):
    """A classifier behind LitServe."""

    def setup(self, device: str) -> None:
        """Load the model in a worker."""
        self.classifier = Classifier(options.folder, threads=1)

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
        Api(max_batch_size=8, batch_timeout=0.005),
        accelerator="cpu",
        workers_per_device=options.threads,
        timeout=60,
    )
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
