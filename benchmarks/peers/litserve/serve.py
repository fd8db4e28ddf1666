"""LitServe with dynamic batching: as many workers as cores, one thread each."""

import argparse
import sys
from pathlib import Path
from typing import Any

import litserve
import torch
from fastapi import Request

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from user_code import Classifier

parser = argparse.ArgumentParser()
parser.add_argument("--folder", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
arguments = parser.parse_args()


class Api(litserve.LitAPI):
    """A classifier behind LitServe."""

    def setup(self, device: str) -> None:
        """Load the model in a worker."""
        self.classifier = Classifier(arguments.folder, threads=1)

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
        workers_per_device=arguments.threads,
        timeout=60,
    )
    server.run(
        host="127.0.0.1", port=arguments.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
