"""An address in a request is opened by nobody, whatever its scheme and wherever it stands."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from models.manifest import Tokenization
from models.repository import Repository
from tests.bundles import publish_texts
from tests.images import png
from tests.servers import Running

Serve = Callable[..., Running]
Door = Callable[[httpx.Client, str], httpx.Response]
PNG = {"Content-Type": "image/png"}
TEXT = {"Content-Type": "text/plain"}
INFER = "/v2/models/shades/infer"
LENGTH_HEADER = "Inference-Header-Content-Length"


def instance(client: httpx.Client, sent: object) -> httpx.Response:
    return client.post("/predict", json={"instances": [sent]})


def as_json_of_the_protocol(client: httpx.Client, address: str) -> httpx.Response:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [address]}
    return client.post(INFER, json={"inputs": [tensor]})


def as_binary_of_the_protocol(client: httpx.Client, address: str) -> httpx.Response:
    element = len(address).to_bytes(4, "little") + address.encode()
    parameters = {"binary_data_size": len(element)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    return client.post(INFER, content=head + element, headers={LENGTH_HEADER: str(len(head))})


def as_a_raw_tensor(client: httpx.Client, address: str) -> httpx.Response:
    # Never the 64 bytes of one that is right.
    return client.post(INFER, content=address.ljust(65), headers={LENGTH_HEADER: "0"})


def as_feedback(client: httpx.Client, address: str) -> httpx.Response:
    body = {"request_id": "r", "model": "shades", "label": "light", "image": address}
    return client.post("/feedback", json=body)


DOORS: dict[str, Door] = {
    "an image": lambda client, address: client.post("/predict", content=address, headers=PNG),
    "a text": lambda client, address: client.post("/predict", content=address, headers=TEXT),
    "an instance's image": lambda client, address: instance(client, {"image": address}),
    "an instance's url": lambda client, address: instance(client, {"url": address}),
    "the url of an image": lambda client, address: instance(client, {"image": {"url": address}}),
    "an instance": instance,
    "a form's file": lambda client, address: client.post("/predict", files={"file": address.encode()}),
    "a form's field": lambda client, address: client.post("/predict", files={"file": (None, address)}),
    "a form's url": lambda client, address: client.post("/predict", files={"url": (None, address)}),
    "a short form": lambda client, address: client.post("/predict", data={"image": address}),
    "a model": lambda client, address: client.post(
        "/predict", params={"model": address}, content=png(0), headers=PNG
    ),
    "JSON of the protocol": as_json_of_the_protocol,
    "binary data of the protocol": as_binary_of_the_protocol,
    "a raw tensor": as_a_raw_tensor,
    "feedback": as_feedback,
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def addresses(listener: socket.socket, tmp_path: Path) -> list[str]:
    """Of what is there: somebody listens, and the file is an image."""
    image = tmp_path / "image.png"
    image.write_bytes(png(0))
    place = f"127.0.0.1:{listener.getsockname()[1]}/x"
    remote = [f"{scheme}//{place}" for scheme in ("http:", "https:", "ftp:", "")]
    return [*remote, f"file://{image}", str(image)]


def assert_nobody_came(listener: socket.socket) -> None:
    # The kernel has taken the connection of whoever came, before they could send anything.
    with pytest.raises(BlockingIOError), listener.accept()[0]:
        pytest.fail("somebody came")


@pytest.mark.parametrize("door", DOORS)
def test_an_address_in_the_place_of_an_image_is_refused_unopened(
    shades: Repository, serve: Serve, tmp_path: Path, listener: socket.socket, addresses: list[str], door: str
) -> None:
    client = serve(feedback_file=tmp_path / "feedback.sqlite").until_ready().client
    for address in addresses:
        response = DOORS[door](client, address)
        assert 400 <= response.status_code < 500, (address, response.text)
        assert response.headers["content-type"] in {"application/json", "application/problem+json"}
        assert response.json().keys() & {"detail", "error"}
    assert_nobody_came(listener)


def test_an_address_in_the_place_of_a_text_is_a_text(
    repository: Repository, serve: Serve, tmp_path: Path, listener: socket.socket, addresses: list[str]
) -> None:
    publish_texts(repository, "moods", tokenize=Tokenization(max_tokens=100))
    client = serve(feedback_file=tmp_path / "feedback.sqlite").until_ready().client
    for address in addresses:
        assert client.post("/predict", content=address, headers=TEXT).status_code == 200
        assert instance(client, {"text": address}).status_code == 200
        body = {"request_id": "r", "model": "moods", "label": "good", "text": address}
        assert client.post("/feedback", json=body).status_code == 201
    assert_nobody_came(listener)
