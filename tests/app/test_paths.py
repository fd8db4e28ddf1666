"""Paths that are none are answered as such, whoever asks."""

from collections.abc import Callable

import httpx
import pytest

from models.repository import Repository
from tests.images import png
from tests.servers import Running

Serve = Callable[..., Running]


@pytest.fixture
def client(shades: Repository, serve: Serve) -> httpx.Client:
    return serve().until_ready().client


@pytest.mark.parametrize("path", ["/predict/", "/models/shades/predict/", "//predict"])
def test_a_slash_too_many_is_another_path(client: httpx.Client, path: str) -> None:
    # Of a path alone, httpx would take two slashes for the beginning of an address.
    answer = client.post(f"{client.base_url}{path}", content=png(0), headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v2/", "/v2/health/ready/", "/v2/models/shades/", "/v2/models/shades/ready/"])
def test_so_it_is_in_the_protocol_with_its_own_kind_of_answer(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]
