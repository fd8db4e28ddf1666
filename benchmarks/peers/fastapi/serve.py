"""The service that most people write: FastAPI, one model, one request at a time in its thread pool."""

import argparse
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from user_code import Classifier

parser = argparse.ArgumentParser()
parser.add_argument("--folder", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
arguments = parser.parse_args()

app = FastAPI()
classifier = Classifier(arguments.folder, arguments.threads)


def classify(body: bytes) -> dict[str, Any]:
    """Answer one request."""
    return classifier.predict([classifier.prepare(body)])[0]


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Take a raw body."""
    return await run_in_threadpool(classify, await request.body())


uvicorn.run(app, port=arguments.port, log_level="warning", access_log=False)
