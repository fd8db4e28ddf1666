"""Triton by PyTriton, with its dynamic batcher: as many instances of each model as cores, one thread each.

The instances are threads of one Python process, so that what holds the interpreter's lock takes turns.
"""

import json
import os
import signal
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.utils import InferenceServerException
from user_code import Classifier, models_in, read_options

TRIES = 5


class Instance:
    """A classifier behind Triton."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @batch
    def predict(self, body: NDArray[np.object_]) -> dict[str, NDArray[np.object_]]:
        """Classify a batch: `body` has shape N1."""
        answers = self.classifier.predict([self.classifier.prepare(each) for each in body[:, 0]])
        return {"answer": np.array([[json.dumps(answer).encode()] for answer in answers], dtype=object)}


def serve(config: TritonConfig, models: Mapping[str, Sequence[Instance]]) -> None:
    """Serve until stopped."""
    with Triton(config=config) as triton:
        for model, instances in models.items():
            triton.bind(
                model_name=model,
                infer_func=[instance.predict for instance in instances],
                inputs=[Tensor(name="body", dtype=bytes, shape=(1,))],
                outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
                config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=5000)),
            )
        triton.serve()


def main() -> None:
    """Serve, at the second or third try if need be."""
    options = read_options()
    # Its backend links to the first libpython that is found, and runs this interpreter's library with it.
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    # It cleans up behind an interrupt only.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = TritonConfig(
        http_address="127.0.0.1", http_port=options.port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    models = {
        model: [Instance(Classifier(folder, threads=1)) for _ in range(options.threads)]
        for model, folder in models_in(options.folder).items()
    }
    for _ in range(TRIES):
        # The second instance may ask the first for its socket before that listens (PyTriton 0.7.0).
        with suppress(InferenceServerException):
            serve(config, models)
            return


if __name__ == "__main__":
    main()
