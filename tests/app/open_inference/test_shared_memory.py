"""Shared memory there is none, and a client that asks for it is told so: it would read there what is none."""

from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from models.repository import Repository
from tests.servers import Running

Serve = Callable[..., Running]


@pytest.fixture
def client(shades: Repository, serve: Serve) -> tritonclient.http.InferenceServerClient:
    return tritonclient.http.InferenceServerClient(f"127.0.0.1:{serve().until_ready().port}")


def test_an_output_is_not_put_there(client: tritonclient.http.InferenceServerClient) -> None:
    wanted = tritonclient.http.InferRequestedOutput("scores", binary_data=False)
    wanted.set_shared_memory("region", 12)
    tensor = tritonclient.http.InferInput("images", [1, 1, 8, 8], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 1, 8, 8), np.uint8))
    with pytest.raises(InferenceServerException, match="outputs come with the reply only"):
        client.infer("shades", [tensor], outputs=[wanted])


def test_an_input_is_not_looked_for_there(client: tritonclient.http.InferenceServerClient) -> None:
    tensor = tritonclient.http.InferInput("images", [1, 1, 8, 8], "UINT8")
    tensor.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="wants either data or the parameter binary_data_size"):
        client.infer("shades", [tensor])
