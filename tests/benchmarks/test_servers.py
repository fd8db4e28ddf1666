"""What is asked of each server is what its protocol says, and who cannot run here is told."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest

from benchmarks.environments import lack_of_java
from benchmarks.labels import label_in
from benchmarks.servers import LANTERN, SERVERS, TORCHSERVE, Server
from benchmarks.workloads import SENTENCES, WORKLOADS, Workload

BODIES = (b"\xff\xd8 one\r\n--", b"\xff\xd8 two")


def asked(name: str, *bodies: bytes) -> tuple[str, dict[str, str], bytes]:
    """A request taken apart: path, headers, body."""
    head, _, body = SERVERS[name].request(bodies, "image/jpeg").partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, version = first.split()
    assert (method, version) == ("POST", "HTTP/1.1")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body)
    return path, headers, body


def files(headers: dict[str, str], body: bytes) -> list[tuple[str, bytes]]:
    """Content type and bytes of the parts `file` of a multipart form."""
    message = message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert {part.get_param("name", header="Content-Disposition") for part in parts} == {"file"}  # type: ignore[union-attr]
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in parts]  # type: ignore[union-attr, misc]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lantern", "/predict"),
        ("fastapi", "/predict"),
        ("rayserve", "/predict"),
        ("torchserve", "/predictions/classifier"),
    ],
)
def test_a_body_goes_as_it_is(name: str, path: str) -> None:
    where, headers, body = asked(name, BODIES[0])

    assert (where, headers["Content-Type"], body) == (path, "image/jpeg", BODIES[0])


@pytest.mark.parametrize("name", ["litserve", "bentoml"])
def test_a_form_uploads_a_file(name: str) -> None:
    where, headers, body = asked(name, BODIES[0])

    assert where == "/predict"
    assert files(headers, body) == [("image/jpeg", BODIES[0])]


@pytest.mark.parametrize("name", ["lantern", "fastapi", "bentoml"])
def test_several_inputs_go_as_files_of_a_form(name: str) -> None:
    _, headers, body = asked(name, *BODIES)

    assert files(headers, body) == [("image/jpeg", each) for each in BODIES]


def test_mlserver_is_asked_by_the_open_inference_protocol() -> None:
    where, headers, body = asked("mlserver", *BODIES)

    assert (where, headers["Content-Type"]) == ("/v2/models/classifier/infer", "application/json")
    (tensor,) = json.loads(body)["inputs"]
    assert (tensor["datatype"], tensor["shape"], tensor["parameters"]) == (
        "BYTES",
        [2, 1],
        {"content_type": "base64"},
    )
    assert tuple(map(base64.b64decode, tensor["data"])) == BODIES


def test_triton_is_asked_by_a_raw_binary_request() -> None:
    where, headers, body = asked("triton", BODIES[0])

    assert where == "/v2/models/classifier/infer"
    assert (headers["Inference-Header-Content-Length"], body) == ("0", BODIES[0])


def test_only_who_takes_several_inputs_is_asked_for_them() -> None:
    takers = {name for name, server in SERVERS.items() if server.unfit(inputs=2) is None}

    assert takers == {"lantern", "lantern-auto", "lantern-workers", "fastapi", "bentoml", "mlserver"}
    with pytest.raises(ValueError, match="triton takes one input"):
        SERVERS["triton"].request(BODIES, "image/jpeg")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lantern", "/models/tiny/predict"),
        ("fastapi", "/predict/tiny"),
        ("litserve", "/predict/tiny"),
        ("bentoml", "/predict/tiny"),
        ("rayserve", "/predict/tiny"),
        ("mlserver", "/v2/models/tiny/infer"),
        ("triton", "/v2/models/tiny/infer"),
        ("torchserve", "/predictions/tiny"),
    ],
)
def test_one_of_several_models_is_addressed(name: str, path: str) -> None:
    request = SERVERS[name].request(BODIES[:1], "image/jpeg", model="tiny")

    assert request.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert SERVERS[name].unfit(models=2) is None


def test_who_serves_one_model_is_not_asked_for_another() -> None:
    server = Server("a", ())

    assert server.unfit(models=2) == "it serves one model"
    with pytest.raises(ValueError, match="a serves one model"):
        server.request(BODIES[:1], "image/jpeg", model="tiny")


def test_a_deadline_is_told_only_to_who_wants_it() -> None:
    assert b"X-Request-Timeout-Ms: 250\r\n" in LANTERN.request(BODIES[:1], "image/jpeg", 250)
    assert b"X-Request-Timeout-Ms" not in LANTERN.request(BODIES[:1], "image/jpeg")
    assert b"250" not in SERVERS["fastapi"].request(BODIES[:1], "image/jpeg", 250)


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)
def test_every_server_can_be_started(server: Server) -> None:
    known = {"port": 8000, "folder": "/model", "models_dir": "/models", "threads": 2}
    words = [word.format(**known) for word in server.command]
    environment = {name: value.format(**known) for name, value in server.environment.items()}

    assert "8000" in words
    assert any("/model" in word for word in (*words, *environment.values()))
    assert server.requirements is None or server.requirements.is_file()
    assert not words[0].endswith(".py") or Path(words[0]).is_file()


def java(folder: Path, *, version: str) -> None:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-20' >&2\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "lack"),
    [("17.0.15", None), ("21", None), ("11.0.2", "11.0.2"), ("1.8.0_292", "1.8.0_292"), (None, "there is none")],
)
def test_torchserve_wants_java_of_version_17(
    version: str | None, lack: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if version:
        java(tmp_path, version=version)

    said = lack_of_java()

    assert TORCHSERVE.lack is lack_of_java
    if lack is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith("it needs Java 17 or later")
        assert lack in said


def test_java_home_wins_over_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    java(tmp_path / "bin", version="11")
    java(tmp_path, version="17")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    assert 'version "11"' in str(lack_of_java())


@pytest.mark.parametrize("option", ["--servers", "--workloads"])
def test_an_unknown_name_is_refused(option: str) -> None:
    command = [sys.executable, "-m", "benchmarks", option, "nonesuch"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "'nonesuch' is none of" in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        '{"model":"tiny","predictions":[{"label":"label 0","score":0.1,"top":[{"label":"label 1"}]}]}',
        '[{"top": [{"label": "label 0", "score": 0.1}, {"label": "label 1", "score": 0.1}]}]',
        '{"outputs":[{"name":"answer","data":["{\\"top\\": [{\\"label\\": \\"label 0\\", \\"score\\": 0.1}]}"]}]}',
        '{"outputs":[{"name":"answer"}]}\ufffd\x00{"top": [{"label": "label 0", "score": 0.1}]}',
        '{\n  "top": [\n    {\n      "label": "label 0",\n      "score": 0.1\n    }\n  ]\n}',
    ],
)
def test_the_label_is_found_in_every_answer(answer: str) -> None:
    assert label_in(answer) == "label 0"


def test_an_answer_may_have_no_label() -> None:
    assert label_in("{}") is None


def test_a_workload_of_several_inputs_sends_each_body_equally_often() -> None:
    lstm = WORKLOADS["lstm"]
    assert isinstance(lstm, Workload)
    workload = replace(lstm, inputs=4)

    requests = workload.requests()

    assert {len(inputs) for inputs in requests} == {4}
    sent = [body for inputs in requests for body in inputs]
    assert all(sent.count(sentence.encode()) == 4 for sentence in SENTENCES)
    assert [inputs[0] for inputs in requests] == [sentence.encode() for sentence in SENTENCES]
