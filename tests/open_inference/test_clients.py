"""Clients that others wrote, as they are installed from the registry: they work unchanged."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.open_inference.target import Target, outputs, same

pytestmark = pytest.mark.anyio


def address(target: Target) -> str:
    return str(target.client.base_url).rstrip("/")


@pytest.fixture
def triton(target: Target) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(address(target).removeprefix("http://")) as client:
        yield client


def triton_input(target: Target, values: NDArray[Any], module: Any = tritonclient.http, **how: Any) -> Any:
    tensor = module.InferInput(target.input["name"], values.shape, target.input["datatype"])
    tensor.set_data_from_numpy(values, **how)
    return tensor


def as_arrays(result: Any, target: Target) -> dict[str, NDArray[Any]]:
    """What a client's result holds, texts as strings."""
    found = {}
    for name in target.output_names:
        values = result.as_numpy(name)
        found[name] = np.vectorize(_text, otypes=[object])(values) if values.dtype == object else values
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_triton_finds_the_server_and_the_model(
    target: Target, triton: tritonclient.http.InferenceServerClient
) -> None:
    version = target.metadata["versions"][-1]
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(target.model)
    assert triton.is_model_ready(target.model, version)
    assert not triton.is_model_ready("nobody-knows-it")
    assert triton.get_server_metadata()["name"]
    assert triton.get_model_metadata(target.model) == target.metadata
    assert triton.get_model_metadata(target.model, version)["inputs"] == target.metadata["inputs"]


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("given_binary", [True, False, None])
def test_triton_infers_with_binary_data_on_and_off(
    target: Target,
    triton: tritonclient.http.InferenceServerClient,
    sent_binary: bool,
    given_binary: bool | None,
) -> None:
    wanted = None
    if given_binary is not None:
        wanted = [
            tritonclient.http.InferRequestedOutput(name, binary_data=given_binary) for name in target.output_names
        ]
    values = target.values(3)
    tensor = triton_input(target, values, binary_data=sent_binary)
    result = triton.infer(target.model, [tensor], outputs=wanted, request_id="mine", timeout=20_000_000)
    assert result.get_response()["id"] == "mine"
    assert same(as_arrays(result, target), outputs(target.infer(target.request(3))))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_may_compress(
    target: Target, triton: tritonclient.http.InferenceServerClient, algorithm: str
) -> None:
    tensor = triton_input(target, target.values(3))
    result = triton.infer(
        target.model,
        [tensor],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert same(as_arrays(result, target), outputs(target.infer(target.request(3))))


def test_triton_infers_in_the_background(target: Target, triton: tritonclient.http.InferenceServerClient) -> None:
    tensor = triton_input(target, target.values(2))
    pending = [triton.async_infer(target.model, [tensor]) for _ in range(3)]
    wanted = outputs(target.infer(target.request(2)))
    assert all(same(as_arrays(each.get_result(), target), wanted) for each in pending)


async def test_triton_infers_within_asyncio(target: Target) -> None:
    module = tritonclient.http.aio
    wanted = outputs(target.infer(target.request(2)))
    async with module.InferenceServerClient(address(target).removeprefix("http://")) as client:
        assert await client.is_model_ready(target.model)
        tensor = triton_input(target, target.values(2), module)
        found = await asyncio.gather(*(client.infer(target.model, [tensor]) for _ in range(3)))
    assert all(same(as_arrays(each, target), wanted) for each in found)


def test_triton_is_told_what_is_wrong(target: Target, triton: tritonclient.http.InferenceServerClient) -> None:
    tensor = tritonclient.http.InferInput("nobody-knows-it", [1], "INT8")
    tensor.set_data_from_numpy(np.zeros(1, np.int8))
    with pytest.raises(InferenceServerException, match=target.input["name"]):
        triton.infer(target.model, [tensor])


@pytest.mark.parametrize("binary", [True, False])
async def test_kserve_infers(target: Target, binary: bool) -> None:
    values = target.values(3)
    tensor = InferInput(target.input["name"], list(values.shape), target.input["datatype"])
    tensor.set_data_from_numpy(values, binary_data=binary)
    request = InferRequest(target.model, [tensor], request_id="mine", parameters={"binary_data_output": binary})
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(address(target))
        assert await client.is_server_ready(address(target))
        assert await client.is_model_ready(address(target), target.model)
        found = await client.infer(address(target), request, model_name=target.model)
    assert (found.id, found.model_name) == ("mine", target.model)
    given = {output.name: output.as_numpy() for output in found.outputs}
    assert same(given, outputs(target.infer(target.request(3))))


async def test_kserve_is_told_what_is_wrong(target: Target) -> None:
    request = InferRequest("nobody-knows-it", [InferInput("x", [1], "INT8", [1])])
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert not await client.is_model_ready(address(target), "nobody-knows-it")
        with pytest.raises(httpx.HTTPStatusError, match="nobody-knows-it"):
            await client.infer(address(target), request, model_name="nobody-knows-it")
