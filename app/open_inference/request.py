"""An inference request's body -> what it asks, and the binary data of each of its inputs.

Sources: Open Inference Protocol, "Inference", and Triton's binary tensor data extension.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from app.errors import BodyTooLarge, InvalidRequest, explain
from app.open_inference.schemas import InferRequest, InputTensor

LENGTH_HEADER = "Inference-Header-Content-Length"
# Each is an object of Python's, made before anyone can look at it.
MOST_JSON_VALUES = 2_000_000
# Most bytes that each of these stands for, once it is an object; seen of CPython 3.11, and rounded up.
JSON_BYTES = {b",": 40, b"[": 64, b"{": 200, b":": 80, b'"': 30}
# Of each character of a string, where one is beyond ASCII: CPython gives all of them the room of the widest.
WIDEST_CHAR_BYTES = 4


class Parsed(NamedTuple):
    """A request, and the binary data of each of its inputs; None if its elements are in the JSON."""

    request: InferRequest
    binary: Sequence[memoryview | None]


def json_length(header: str, body: bytes, content_type: str | None) -> int | None:
    """Return how many bytes of a body are JSON; None if all of it is one raw tensor.

    Args:
        header: `Inference-Header-Content-Length`.
        body: The whole body.
        content_type: What it is called: JSON is not taken for a tensor that happens to have as many bytes.

    Raises:
        InvalidRequest: It is no number, or more than there are.
    """
    if not (header.isascii() and header.isdigit()) or len(header) > len(str(len(body))):
        raise InvalidRequest(f"Inference-Header-Content-Length: {header[:40]!r} is no number of the body's bytes")
    if int(header) > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: {header} is more than the body's {len(body)} bytes"
        )
    if int(header) == 0 and (content_type or "").partition(";")[0].strip().lower() == "application/json":
        return len(body)
    return int(header) or None


def json_bytes(body: bytes, length: int) -> int:
    """Return how much memory a body's JSON takes when it is read, and no less, before it is.

    Raises:
        BodyTooLarge: They are too many.
    """
    counts = {mark: body.count(mark, 0, length) for mark in JSON_BYTES}
    count = 1 + counts[b","] + counts[b"["] + counts[b"{"]
    if count > MOST_JSON_VALUES:
        raise BodyTooLarge(
            f"the JSON has {count} values or so; at most {MOST_JSON_VALUES} are allowed: send binary data instead"
        )
    text = body[:length]
    char_bytes = 1 if text.isascii() and b"\\u" not in text else WIDEST_CHAR_BYTES
    return char_bytes * length + sum(bytes_each * counts[mark] for mark, bytes_each in JSON_BYTES.items())


def parse(body: bytes, length: int) -> Parsed:
    """Read a body that is not one raw tensor.

    Args:
        body: The whole body.
        length: Of its JSON.

    Raises:
        InvalidRequest: It is not what the protocol says; the detail names the field.
    """
    view = memoryview(body)
    try:
        # NaN and Infinity are no JSON.
        request = InferRequest.model_validate(from_json(bytes(view[:length]), allow_inf_nan=False))
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors(include_url=False, include_input=False)[0])) from None
    except ValueError as error:
        raise InvalidRequest(f"body: is not JSON: {error}") from None
    return Parsed(request, _split(request.inputs, view[length:]))


def timeout_s(request: InferRequest) -> float | None:
    """Return the time that a request gives; None if it does not say.

    Raises:
        InvalidRequest: It says something else.
    """
    timeout_us = request.parameters.get("timeout")
    if timeout_us is None:
        return None
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or not 0 <= timeout_us < 2**63:
        raise InvalidRequest("parameters.timeout: is not a whole number of microseconds")
    return timeout_us / 1e6 if timeout_us else None


def _split(inputs: Sequence[InputTensor], data: memoryview) -> list[memoryview | None]:
    binary: list[memoryview | None] = []
    at = 0
    for index, tensor in enumerate(inputs):
        size = _binary_size(index, tensor)
        if size is None:
            binary.append(None)
            continue
        if size > len(data) - at:
            raise InvalidRequest(
                f"inputs.{index}.parameters.binary_data_size: is {size}, but only {len(data) - at} bytes are left "
                "of the body"
            )
        binary.append(data[at : at + size])
        at += size
    if at != len(data):
        raise InvalidRequest(
            f"body: {len(data)} bytes follow the JSON, but the inputs' binary_data_size are {at} in all"
        )
    return binary


def _binary_size(index: int, tensor: InputTensor) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise InvalidRequest(f"inputs.{index}: wants either data or the parameter binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise InvalidRequest(f"inputs.{index}.parameters.binary_data_size: is not a number of bytes")
    return size
