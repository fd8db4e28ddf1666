"""What a model gave -> the reply's body.

Sources: Open Inference Protocol, "Inference", and Triton's binary tensor data and classification extensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from app.errors import InvalidRequest
from app.open_inference import elements
from app.open_inference.datatypes import BYTES, DTYPES, Elements
from app.open_inference.schemas import InferRequest, WantedOutput
from app.open_inference.signature import Spec, outputs_of
from app.responding import Raw
from models.manifest import Manifest


class Body(NamedTuple):
    """A reply's body; `json_length` is that of the JSON before its binary data, None if there is none."""

    content: bytes
    json_length: int | None


@dataclass(frozen=True)
class Wanted:
    """An output that is wanted.

    Attributes:
        index: Its place among the model's.
        binary: Whether it follows the JSON.
        best: How many labels to name in the place of scores; None leaves the scores.
    """

    spec: Spec
    index: int
    binary: bool
    best: int | None


def wanted_outputs(request: InferRequest | None, manifest: Manifest) -> list[Wanted]:
    """Return which outputs are wanted, and how.

    Args:
        request: None of a request that is one raw tensor: all outputs are binary then.
        manifest: The model's.

    Raises:
        InvalidRequest: One is none of the model's, or wanted twice, or in a way that it is not given.
    """
    specs = outputs_of(manifest)
    if request is None:
        return [Wanted(spec, index, True, None) for index, spec in enumerate(specs)]
    all_binary = _flag(request.parameters, "binary_data_output", "parameters") or False
    outputs = request.outputs or [WantedOutput(name=spec.name) for spec in specs]
    names = [output.name for output in outputs[: len(specs) + 1]]
    if len(set(names)) < len(names):
        raise InvalidRequest("outputs: one is wanted twice")
    return [_wanted(place, output, specs, all_binary, manifest) for place, output in enumerate(outputs)]


def size_bytes(items: Sequence[Raw]) -> int:
    """Return how much a model gave, about."""
    return sum(
        sum(map(len, part)) if isinstance(part, list) else part.nbytes for item in items for part in item.parts
    )


def write(
    request: InferRequest | None, wanted: Sequence[Wanted], manifest: Manifest, items: Sequence[Raw]
) -> Body:
    """Write the reply.

    Args:
        request: As of `wanted_outputs`.
        wanted: What that returned.
        manifest: The model's.
        items: What it gave for each item.
    """
    outputs, binary = [], []
    for each in wanted:
        datatype, shape, values = _gather(each, manifest, items)
        output: dict[str, Any] = {"name": each.spec.name, "datatype": datatype, "shape": shape}
        if each.binary:
            binary.append(elements.to_binary(values))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = elements.to_json(values)
        outputs.append(output)
    reply: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request is not None and request.id is not None:
        reply["id"] = request.id
    text = to_json({**reply, "outputs": outputs})
    return Body(b"".join((text, *binary)), len(text) if binary else None)


def _wanted(
    place: int, output: WantedOutput, specs: Sequence[Spec], all_binary: bool, manifest: Manifest
) -> Wanted:
    where = f"outputs.{place}"
    index = next((index for index, spec in enumerate(specs) if spec.name == output.name), None)
    if index is None:
        given = ", ".join(spec.name for spec in specs)
        raise InvalidRequest(f"{where}.name: {output.name[:80]!r} is none of the model's outputs: {given}")
    if "shared_memory_region" in output.parameters:  # Or the client would read there what is none.
        raise InvalidRequest(f"{where}.parameters.shared_memory_region: outputs come with the reply only")
    binary = _flag(output.parameters, "binary_data", f"{where}.parameters")
    return Wanted(specs[index], index, all_binary if binary is None else binary, _best(output, manifest, where))


def _best(output: WantedOutput, manifest: Manifest, where: str) -> int | None:
    count = output.parameters.get("classification")
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 0 or (count and not manifest.labels):
        raise InvalidRequest(
            f"{where}.parameters.classification: is not a number of labels, of a model that has some"
        )
    return count or None  # 0 asks for none.


def _flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{where}.{name}: is neither true nor false")
    return value


def _gather(wanted: Wanted, manifest: Manifest, items: Sequence[Raw]) -> tuple[str, list[int], Elements]:
    parts = [item.parts[wanted.index] for item in items]
    if wanted.spec.datatype == BYTES:
        texts = [text for part in parts for text in part]
        return BYTES, [len(parts), len(texts) // len(parts)], texts
    values = _stack(parts, DTYPES[wanted.spec.datatype])
    if wanted.best is None:
        return wanted.spec.datatype, list(values.shape), values
    best = min(wanted.best, len(manifest.labels))
    named = [text for scores_K in values for text in _name(scores_K, manifest.labels, best)]
    return BYTES, [len(parts), best], named


def _stack(parts: Sequence[Any], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Put items together, filled up with 0 where batches were of different lengths."""
    shape = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
    values = np.zeros((len(parts), *shape), dtype)
    for row, part in zip(values, parts, strict=True):
        row[tuple(map(slice, part.shape))] = part
    return values


def _name(scores_K: NDArray[Any], labels: Sequence[str], count: int) -> list[bytes]:
    best = (-scores_K).argsort(kind="stable")[:count].tolist()
    return [f"{scores_K[index]:.6f}:{index}:{labels[index]}".encode() for index in best]
