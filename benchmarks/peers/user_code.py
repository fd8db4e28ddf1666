"""What a user of any of the servers would write: bytes -> example -> batch -> labels. The same for all of them.

A folder holds `model.ts.pt`, `labels.json`, and `task.json`: how an image is cut, or that it is text, with
`tokenizer.json`; or else such a folder for each of several models. Axes: N items, C channels, H height, W width,
K labels, L tokens.

Each server's program imports this by its name: this folder is on PYTHONPATH, which workers inherit.
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

FILES = ("model.ts.pt", "labels.json", "task.json", "tokenizer.json")
ONLY = "classifier"
TOP = 5
PAD = 0


def models_in(folder: Path) -> dict[str, Path]:
    """Find a folder's models by name: the only one, or that in each of its folders."""
    if (folder / "task.json").exists():
        return {ONLY: folder}
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/task.json"))}


def path_of(model: str) -> str:
    """Say where a server takes requests for a model, if it lets one choose."""
    return "/predict" if model == ONLY else f"/predict/{model}"


def read_options() -> argparse.Namespace:
    """Read what a server is told: the model's folder, the port, and how many CPU threads it may use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


class Classifier:
    """A TorchScript classifier and its preprocessing.

    Args:
        folder: Where its files are.
        threads: CPU threads that a batch may use.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._task: dict[str, Any] = json.loads((folder / "task.json").read_text())
        self._labels: list[str] = json.loads((folder / "labels.json").read_text())
        self._model = torch.jit.freeze(torch.jit.load(str(folder / "model.ts.pt"), map_location="cpu").eval())
        if self._task["kind"] == "text":
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.encode_special_tokens = True

    def prepare(self, body: bytes) -> torch.Tensor:
        """Decode a request's body: uint8 CHW, or int64 L."""
        if self._task["kind"] == "text":
            ids = self._tokenizer.encode(body.decode()).ids
            return torch.tensor(ids[: self._task["max_tokens"]], dtype=torch.int64)
        image = Image.open(io.BytesIO(body)).convert("RGB")
        height, width = self._task["size"]
        if shorter := self._task["shorter_side"]:
            scale = shorter / min(image.size)
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
            )
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        elif image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def predict(self, examples: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
        """Classify a batch."""
        if self._task["kind"] == "text":
            batch = torch.nn.utils.rnn.pad_sequence(list(examples), batch_first=True, padding_value=PAD)
        else:
            batch = torch.stack(list(examples))
        with torch.inference_mode():
            scores_NK = self._model(batch)
        best = scores_NK.topk(min(TOP, len(self._labels)))
        return [
            {
                "top": [
                    {"label": self._labels[k], "score": round(s, 6)} for s, k in zip(scores, places, strict=True)
                ]
            }
            for scores, places in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
