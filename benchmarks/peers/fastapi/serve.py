"""The service that most people write: FastAPI, a path for each model, a request at a time in its thread pool."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from user_code import Classifier, models_in, path_of, read_options

options = read_options()
app = FastAPI()


def predicting(classifier: Classifier) -> Callable[[Request], Awaitable[list[dict[str, Any]]]]:
    """Write the handler of a model."""

    def classify(bodies: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answer one request."""
        return classifier.predict([classifier.prepare(body) for body in bodies])

    async def predict(request: Request) -> list[dict[str, Any]]:
        """Take a raw body, or a form with files."""
        return await run_in_threadpool(classify, await read_bodies(request))

    return predict


async def read_bodies(request: Request) -> list[bytes]:
    """Read what there is to classify."""
    if not request.headers["content-type"].startswith("multipart/form-data"):
        return [await request.body()]
    async with request.form() as form:
        return [await file.read() for file in form.getlist("file")]


for model, folder in models_in(options.folder).items():
    app.post(path_of(model))(predicting(Classifier(folder, options.threads)))
uvicorn.run(app, port=options.port, log_level="warning", access_log=False)
