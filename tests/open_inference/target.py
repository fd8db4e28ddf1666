"""A server that speaks the protocol, one model of it, and requests that its metadata says are right."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

# Of the server that is asked; None asks this service.
ADDRESS = os.environ.get("OPEN_INFERENCE_URL") or None
of_this_service = pytest.mark.skipif(ADDRESS is not None, reason="it asks this service, and no address")

DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP32": "<f4",
    "FP64": "<f8",
}
LENGTH_HEADER = "Inference-Header-Content-Length"
PORTS = {"http": 80, "https": 443}
# What stands for a dimension that varies, but the first.
VARYING = 4
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Target:
    """A model of a server; of this service, which is `own`, it is known how exactly it refuses."""

    client: httpx.Client
    model: str
    own: bool = True

    @cached_property
    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v2/models/{self.model}").raise_for_status().json()
        return found

    @property
    def input(self) -> dict[str, Any]:
        """The model's input, which is one that the suite can make."""
        inputs: list[dict[str, Any]] = self.metadata["inputs"]
        names = [each["name"] for each in inputs]
        assert len(inputs) == 1, f"the suite asks a model of one input, and {self.model!r} takes {names}"
        (found,) = inputs
        said = f"{found['name']!r} of {self.model!r} is {found['datatype']} {found['shape']}"
        assert found["datatype"] in DTYPES, f"the suite sends {', '.join(DTYPES)}, and {said}"
        assert found["shape"][:1] == [-1], f"the suite asks a model whose first dimension is -1, and {said}"
        return found

    @property
    def output_names(self) -> list[str]:
        return [output["name"] for output in self.metadata["outputs"]]

    def values(self, items: int = 1) -> NDArray[np.generic]:
        """An input of so many items, each of another value."""
        others = self.input["shape"][1:]
        shape = (items, *(VARYING if size == -1 else size for size in others))
        rows = np.arange(1, items + 1).reshape(items, *[1] * len(others))
        return np.broadcast_to(rows, shape).astype(DTYPES[self.input["datatype"]])

    def tensor(self, values: NDArray[np.generic], **changes: Any) -> dict[str, Any]:
        """An input as the JSON has it; a change to None leaves a field out."""
        fields = {
            "name": self.input["name"],
            "shape": list(values.shape),
            "datatype": self.input["datatype"],
            "data": values.tolist(),
        } | changes
        return {name: value for name, value in fields.items() if value is not None}

    def request(self, items: int = 1, **changes: Any) -> dict[str, Any]:
        """A request that is right."""
        return {"inputs": [self.tensor(self.values(items))]} | changes

    def infer(self, request: object, version: str = "") -> httpx.Response:
        """Ask in JSON."""
        return self.client.post(f"/v2/models/{self.model}{version}/infer", json=request)

    def infer_text(self, text: str | bytes, **headers: str) -> httpx.Response:
        """Ask in bytes that may be no JSON."""
        headers = {"Content-Type": "application/json"} | headers
        return self.client.post(f"/v2/models/{self.model}/infer", content=text, headers=headers)

    def infer_binary(self, request: object, *binary: bytes, length: int | str | None = None) -> httpx.Response:
        """Ask with binary data behind the JSON."""
        text = json.dumps(request).encode()
        headers = {LENGTH_HEADER: str(len(text) if length is None else length)}
        headers["Content-Type"] = "application/octet-stream"
        body = b"".join((text, *binary))
        return self.client.post(f"/v2/models/{self.model}/infer", content=body, headers=headers)

    def binary_tensor(self, values: NDArray[np.generic], size: object = None, **changes: Any) -> dict[str, Any]:
        """An input whose elements follow the JSON."""
        parameters = {"binary_data_size": values.nbytes if size is None else size}
        return self.tensor(values, **{"data": None, "parameters": parameters} | changes)

    def refused(self, response: httpx.Response, status: int = 400) -> str:
        """The message of a refusal that is the client's fault.

        Args:
            response: The refusal.
            status: This service's; the protocol leaves it open.
        """
        said = f"{response.status_code}: {response.text[:500]}"
        assert 400 <= response.status_code < 500, said
        assert not self.own or response.status_code == status, said
        return self.error(response)

    def error(self, response: httpx.Response) -> str:
        """The message of a failure; another server may say more beside it."""
        kind = response.headers["content-type"]
        assert kind == "application/json" if self.own else kind.startswith("application/json")
        body = response.json()
        assert not self.own or list(body) == ["error"]
        message = body["error"]
        assert isinstance(message, str)
        assert message
        return message


def outputs(response: httpx.Response) -> dict[str, NDArray[Any]]:
    """What a reply gives, whichever way."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(LENGTH_HEADER, len(response.content)))
    rest = response.content[length:]
    found = {}
    for output in json.loads(response.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = np.array(output["data"], dtype=object if output["datatype"] == "BYTES" else None)
        else:
            flat, rest = _binary(output["datatype"], rest[:size]), rest[size:]
        found[output["name"]] = flat.reshape(output["shape"])
    assert not rest, "bytes are left over"
    return found


def _binary(datatype: str, content: bytes) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(content, DTYPES[datatype])
    found = []
    while content:
        end = 4 + int.from_bytes(content[:4], "little")
        found.append(content[4:end].decode())
        content = content[end:]
    return np.array(found, dtype=object)


def same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two replies say the same; batches of other sizes differ in the last digits."""
    return list(left) == list(right) and all(_same(left[name], right[name]) for name in left)


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    if left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else bool(np.allclose(left, right, atol=1e-5))


def raw_exchange(target: Target, lines: Sequence[str], body: bytes) -> bytes:
    """Send what no client would; return what comes back until the server closes or the answer has begun."""
    url = target.client.base_url
    path = f"{url.path.rstrip('/')}/v2/models/{target.model}/infer"
    head = "\r\n".join((f"POST {path} HTTP/1.1", f"Host: {url.netloc.decode()}", *lines, "", ""))
    with _connected(url) as connection:
        connection.sendall(head.encode() + body)
        return connection.recv(65_536)


def place(url: httpx.URL) -> tuple[str, int]:
    """The host and port that a URL leads to, whether or not it says the port."""
    return url.host, url.port or PORTS[url.scheme]


def _connected(url: httpx.URL) -> socket.socket:
    connection = socket.create_connection(place(url), PATIENCE_S)
    if url.scheme == "http":
        return connection
    # Whom the suite's client trusts.
    return httpx.create_ssl_context().wrap_socket(connection, server_hostname=url.host)
