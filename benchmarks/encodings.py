"""How a request carries its inputs: the body, and the headers that say what it is."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

BOUNDARY = "lantern-benchmark"


class Encoded(NamedTuple):
    """A request's body, its content type, and what other headers the protocol wants."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}


# Inputs and their content type -> a request.
Encode = Callable[[Sequence[bytes], str], Encoded]


def raw(inputs: Sequence[bytes], content_type: str) -> Encoded:
    """The bytes of one input are the body."""
    (body,) = inputs
    return Encoded(body, content_type)


def form(inputs: Sequence[bytes], content_type: str) -> Encoded:
    """Each input is a part `file` of a multipart form, as browsers and `curl -F` upload files."""
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="body"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()
    parts = b"".join(head + body + b"\r\n" for body in inputs)
    return Encoded(parts + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")


def v2_base64(inputs: Sequence[bytes], _content_type: str) -> Encoded:
    """The Open Inference Protocol in JSON: a tensor of BYTES, in base64, for JSON holds no bytes."""
    tensor = {
        "name": "body",
        "shape": [len(inputs), 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(body).decode() for body in inputs],
    }
    return Encoded(json.dumps({"inputs": [tensor]}).encode(), "application/json")


def v2_raw(inputs: Sequence[bytes], _content_type: str) -> Encoded:
    """The Open Inference Protocol's binary extension without JSON: the body is the only input's only element."""
    (body,) = inputs
    return Encoded(body, "application/octet-stream", {"Inference-Header-Content-Length": "0"})
