"""MLServer with adaptive batching: as many workers as cores, one thread each; every worker has every model.

It speaks the Open Inference Protocol, over HTTP in JSON only: a body is a tensor of BYTES in base64. The binary
extension of the protocol would spare that, but it does not know it.
"""

import asyncio
import json
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from user_code import Classifier, models_in, read_options


class Runtime(MLModel):
    """A classifier behind MLServer."""

    async def load(self) -> bool:
        """Load the model in a worker."""
        self.classifier = Classifier(Path(self.settings.parameters.uri), threads=1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify a batch."""
        bodies = Base64Codec.decode_input(payload.inputs[0])
        answers = self.classifier.predict([self.classifier.prepare(body) for body in bodies])
        output = StringCodec.encode_output("answer", [json.dumps(answer) for answer in answers], use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])


def main() -> None:
    """Serve until stopped."""
    options = read_options()
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=options.threads,
        logging_settings={"version": 1, "root": {"level": "WARNING"}},
    )
    models = [
        ModelSettings(
            name=model,
            implementation="serve.Runtime",
            max_batch_size=8,
            max_batch_time=0.005,
            parameters=ModelParameters(uri=str(folder)),
        )
        for model, folder in models_in(options.folder).items()
    ]

    async def run() -> None:
        await MLServer(settings).start(models)

    asyncio.run(run())


if __name__ == "__main__":
    main()
