"""What the suite asks of a server and its model, of this service and of others."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.open_inference.target import PATIENCE_S, Target, place, raw_exchange

ANSWER = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.fixture(autouse=True)
def unharmed() -> None:
    """No server of models is asked here."""


def model_of(*inputs: dict[str, Any]) -> Target:
    """A model of a server that has nothing but its metadata."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"inputs": inputs}))
    return Target(httpx.Client(base_url="http://any", transport=transport), "m", own=False)


def tensor(datatype: str, *shape: int, name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def test_a_model_that_the_suite_cannot_ask_is_told_as_such() -> None:
    assert model_of(tensor("FP32", -1, 3)).values(2).shape == (2, 3)
    unfit = [
        ([tensor("FP32", -1), tensor("FP32", -1, name="y")], r"one input, and 'm' takes \['x', 'y'\]"),
        ([], r"one input, and 'm' takes \[\]"),
        ([tensor("BYTES", -1)], r"'x' of 'm' is BYTES \[-1\]"),
        ([tensor("FP32", 1, 3)], r"first dimension is -1, and 'x' of 'm' is FP32 \[1, 3\]"),
        ([tensor("FP32")], r"first dimension is -1, and 'x' of 'm' is FP32 \[\]"),
    ]
    for inputs, said in unfit:
        with pytest.raises(AssertionError, match=said):
            model_of(*inputs).request()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(422, json={"error": "why"}),
        httpx.Response(400, json={"error": "why", "code": 3}),
        httpx.Response(400, json={"error": "why"}, headers={"Content-Type": "application/json; charset=utf-8"}),
    ],
)
def test_another_server_may_refuse_in_its_own_way_and_this_service_may_not(response: httpx.Response) -> None:
    client = httpx.Client()
    assert Target(client, "m", own=False).refused(response) == "why"
    with pytest.raises(AssertionError):
        Target(client, "m").refused(response)


@pytest.mark.parametrize("own", [True, False])
def test_no_server_may_refuse_without_a_reason_or_as_its_own_fault(own: bool) -> None:
    target = Target(httpx.Client(), "m", own=own)
    assert target.refused(httpx.Response(400, json={"error": "why"})) == "why"
    assert target.refused(httpx.Response(404, json={"error": "why"}), 404) == "why"
    wrong: list[tuple[int, object]] = [(status, {"error": "why"}) for status in (200, 302, 500)]
    wrong += [(400, {"error": ""}), (400, {"error": 1}), (400, {"detail": "why"})]
    for status, body in wrong:
        with pytest.raises((AssertionError, KeyError)):
            target.refused(httpx.Response(status, json=body))


@pytest.mark.parametrize(
    ("url", "port"), [("http://any", 80), ("https://any/below/", 443), ("http://any:8", 8), ("https://any:80", 80)]
)
def test_an_address_need_not_say_its_port(url: str, port: int) -> None:
    assert place(httpx.URL(url)) == ("any", port)


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server of localhost has; this process trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = tmp_path / "key.pem"
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, secret)
    return context


@pytest.fixture
def server(secured: ssl.SSLContext) -> Iterator[tuple[int, Future[bytes]]]:
    """A server's port, and what it will be sent by the one client that it answers."""
    with socket.create_server(("localhost", 0)) as listening, ThreadPoolExecutor(1) as pool:
        listening.settimeout(PATIENCE_S)

        def answer() -> bytes:
            accepted, _ = listening.accept()
            with secured.wrap_socket(accepted, server_side=True) as connection:
                received: bytes = connection.recv(65_536)
                connection.sendall(ANSWER)
            return received

        yield listening.getsockname()[1], pool.submit(answer)


def test_what_no_client_would_send_goes_by_tls_where_the_address_says_so(
    server: tuple[int, Future[bytes]],
) -> None:
    port, received = server
    with httpx.Client(base_url=f"https://localhost:{port}/below") as client:
        assert raw_exchange(Target(client, "m", own=False), ["Content-Length: -5"], b"{}") == ANSWER
    head = f"POST /below/v2/models/m/infer HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: -5\r\n\r\n{{}}"
    assert received.result(PATIENCE_S) == head.encode()
