"""The binary tensor data extension: what follows the JSON, and headers and sizes that lie."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from tests.open_inference.target import LENGTH_HEADER, Target, outputs, raw_exchange, same


@pytest.fixture(autouse=True)
def extension(target: Target) -> None:
    has = "binary_tensor_data" in target.client.get("/v2").json()["extensions"]
    if not has and not target.own:
        pytest.skip("the server does not have the extension")
    assert has


def json_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The outputs, as the JSON has them that stands before the binary data."""
    found: list[dict[str, Any]] = json.loads(response.content[: int(response.headers[LENGTH_HEADER])])["outputs"]
    return found


def is_binary(output: dict[str, Any]) -> bool:
    """Whether an output says that its elements follow the JSON; they are there, or in it."""
    size = output.get("parameters", {}).get("binary_data_size", 0)
    assert ("data" in output) is (size == 0)
    return bool(size > 0)


def test_binary_inputs_are_answered_as_json_ones(target: Target) -> None:
    values = target.values(2)
    binary = target.infer_binary({"inputs": [target.binary_tensor(values)]}, values.tobytes())
    assert "application/json" in binary.headers["content-type"]
    assert LENGTH_HEADER not in binary.headers
    assert same(outputs(binary), outputs(target.infer(target.request(2))))


def test_all_outputs_may_be_binary(target: Target) -> None:
    response = target.infer(target.request(2, parameters={"binary_data_output": True}))
    assert response.headers["content-type"] == "application/octet-stream"
    assert all(map(is_binary, json_of(response)))
    assert same(outputs(response), outputs(target.infer(target.request(2))))


def test_an_output_says_for_itself_whether_it_is_binary(target: Target) -> None:
    plain = outputs(target.infer(target.request()))
    for whole in (True, False):
        asked = [{"name": name, "parameters": {"binary_data": not whole}} for name in target.output_names]
        response = target.infer(target.request(outputs=asked, parameters={"binary_data_output": whole}))
        assert (LENGTH_HEADER in response.headers) is not whole
        assert whole or all(map(is_binary, json_of(response)))
        assert same(outputs(response), plain)


def test_outputs_may_be_mixed(target: Target) -> None:
    plain = outputs(target.infer(target.request()))
    for binary_at in range(len(plain)):
        binary = [index == binary_at for index in range(len(plain))]
        asked = [
            {"name": name, "parameters": {"binary_data": each}} for name, each in zip(plain, binary, strict=True)
        ]
        response = target.infer(target.request(outputs=asked))
        assert list(map(is_binary, json_of(response))) == binary
        assert same(outputs(response), plain)


def test_a_raw_tensor_is_a_request(target: Target) -> None:
    if target.input["shape"][1:].count(-1) > 1:
        pytest.skip("the shape does not follow from the size")
    values = target.values()
    headers = {LENGTH_HEADER: "0"}
    response = target.client.post(f"/v2/models/{target.model}/infer", content=values.tobytes(), headers=headers)
    assert int(response.headers[LENGTH_HEADER]) > 0
    assert same(outputs(response), outputs(target.infer(target.request())))


@pytest.mark.parametrize("size", [-1, 0, 1, 2**31, 2**63, 2**64, 10**400, 1.5, "8", True, [8], {}])
def test_a_binary_size_that_is_not_the_tensors_is_refused(target: Target, size: object) -> None:
    values = target.values()
    target.refused(target.infer_binary({"inputs": [target.binary_tensor(values, size)]}, values.tobytes()))


def test_bytes_left_over_or_missing_are_refused(target: Target) -> None:
    values = target.values()
    request = {"inputs": [target.binary_tensor(values)]}
    target.refused(target.infer_binary(request, values.tobytes()[:-1]))
    target.refused(target.infer_binary(request, values.tobytes(), b"\0"))
    target.refused(target.infer_binary(request))
    target.refused(target.infer_binary(target.request(), b"\0"))


def test_both_data_and_binary_data_are_refused(target: Target) -> None:
    values = target.values()
    tensor = target.binary_tensor(values) | {"data": values.tolist()}
    target.refused(target.infer_binary({"inputs": [tensor]}, values.tobytes()))


def test_a_size_without_the_header_is_refused(target: Target) -> None:
    target.refused(target.infer({"inputs": [target.binary_tensor(target.values())]}))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(lambda shape: [2**60, *shape[1:]], 413, id="more items than any"),
        pytest.param(lambda shape: [*shape[:-1], 2**62], 400, id="huge at its end"),
        pytest.param(lambda shape: [-1, *shape[1:]], 400, id="minus one"),
        pytest.param(lambda shape: [0, *shape[1:]], 400, id="no items"),
        pytest.param(lambda shape: [2**32, 2**32, *shape], 400, id="overflows to nothing"),
        pytest.param(lambda _: [2**60], 400, id="another rank"),
        pytest.param(lambda shape: [1, 2**62, 4, *shape], 400, id="another rank that overflows"),
    ],
)
def test_a_shape_that_lies_is_refused(
    target: Target, change: Callable[[Sequence[int]], list[int]], status: int
) -> None:
    values = target.values()
    tensor = target.binary_tensor(values, shape=change(values.shape))
    target.refused(target.infer_binary({"inputs": [tensor]}, values.tobytes()), status)


@pytest.mark.parametrize(
    "length",
    [
        "-1",
        "-0",
        "+5",
        "1e2",
        "0x10",
        "five",
        "",
        "1 2",
        "2147483648",
        "4294967296",
        "9" * 40,
        "9" * 5000,
        "²",
        "٣",
    ],
    ids=lambda length: repr(length[:12]),
)
def test_a_header_that_is_no_length_is_refused(target: Target, length: str) -> None:
    values = target.values()
    request = {"inputs": [target.binary_tensor(values)]}
    body = json.dumps(request).encode() + values.tobytes()
    response = target.client.post(
        f"/v2/models/{target.model}/infer", content=body, headers=[(LENGTH_HEADER.encode(), length.encode())]
    )
    target.refused(response)


def test_a_header_that_is_off_by_some_bytes_is_refused(target: Target) -> None:
    values = target.values()
    request = {"inputs": [target.binary_tensor(values)]}
    exact = len(json.dumps(request))
    for length in (1, exact - 1, exact + 1, exact + values.nbytes, exact + values.nbytes + 1):
        target.refused(target.infer_binary(request, values.tobytes(), length=length))


def test_a_length_that_is_more_than_comes_ends_with_its_connection(target: Target) -> None:
    status = "HTTP/1.1 400 " if target.own else "HTTP/1.1 4"
    for lines in (["Content-Length: -5"], ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: x"]):
        answer = raw_exchange(target, [*lines, f"{LENGTH_HEADER}: 2"], b"{}")
        assert answer.startswith(status.encode()), answer
