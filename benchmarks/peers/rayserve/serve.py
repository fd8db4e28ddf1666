"""Ray Serve: as many replicas of each model as cores, one thread each, with dynamic batching."""

import signal
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from starlette.requests import Request
from user_code import Classifier, models_in, path_of, read_options

MAX_BATCH_SIZE = 8
BATCHES_WAITING = 8

options = read_options()
models = models_in(options.folder)


@serve.deployment(
    num_replicas=options.threads,
    # More than a batch, or batches never fill; the rest waits in the proxy.
    max_ongoing_requests=BATCHES_WAITING * MAX_BATCH_SIZE,
    # What Ray reckons with: models that are to share the cores would else wait for each other's.
    ray_actor_options={"num_cpus": 1 / len(models)},
)
class Service:
    """A classifier behind Ray Serve."""

    def __init__(self, folder: Path) -> None:
        self.classifier = Classifier(folder, threads=1)

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.005)
    async def predict(self, examples: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.classifier.predict(examples)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Take a raw body."""
        return await self.predict(self.classifier.prepare(await request.body()))


ray.init(num_cpus=options.threads, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": options.port})
for model, folder in models.items():
    serve.run(
        Service.bind(folder),
        name=model,
        route_prefix=path_of(model),
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
signal.pause()
