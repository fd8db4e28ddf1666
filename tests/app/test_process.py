"""`python -m app` as a process: signals, logs, and the way out."""

import json
import signal
import socket
from pathlib import Path

from models.repository import Repository
from tests.images import png
from tests.servers import process, processor_s, until

PNG = {"Content-Type": "image/png"}


def test_it_serves_logs_each_request_as_json_and_exits_cleanly(shades: Repository) -> None:
    with process(shades.root, drain_grace_s=0) as service:
        service.until_ready()
        sent = PNG | {"X-Request-ID": "known-id"}
        service.client.post("/predict", content=png(0), headers=sent)
        service.client.post("/predict", content=b"x", headers=PNG)
        service.popen.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    lines = [json.loads(line) for line in service.lines]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 400]
    assert requests[0]["request_id"] == "known-id"
    assert (requests[0]["model"], requests[0]["items"]) == ("shades", 1)
    assert requests[1]["code"] == "undecodable_image"
    assert requests[0]["duration_ms"] > 0


def test_a_stalled_client_does_not_hold_up_the_exit(shades: Repository) -> None:
    # Nor does it look as if the process stood still.
    with process(shades.root, drain_grace_s=0, drain_timeout_s=1, stall_timeout_s=5) as service:
        service.until_ready()
        with socket.create_connection(("127.0.0.1", service.client.base_url.port or 0), timeout=20) as stalled:
            head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc"
            stalled.sendall(head.encode())
            service.popen.send_signal(signal.SIGINT)
            assert service.wait() == 0


def test_a_second_signal_exits_at_once(shades: Repository) -> None:
    with process(shades.root, drain_grace_s=3000) as service:
        service.until_ready()
        service.popen.send_signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in service.lines))
        service.popen.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_a_port_in_use_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        import os
        import subprocess
        import sys

        from tests.servers import ROOT

        finished = subprocess.run(
            [sys.executable, "-m", "app", "--port", str(port), "--models-dir", str(tmp_path)],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode != 0
    assert "address already in use" in finished.stderr


def test_an_idle_service_leaves_the_processor_alone(shades: Repository) -> None:
    """After lone requests, which use every core, and after some at once: under 1 % of one core."""
    with process(shades.root, cpu_threads=4) as service:
        service.until_ready()
        for _ in range(5):
            service.client.post("/predict", content=png(0), headers=PNG)
        service.client.post("/predict", files=[("file", png(grey)) for grey in range(0, 250, 10)])
        pid = service.popen.pid
        # Helpers of a parallel computation may spin for a moment after it.
        until(lambda: processor_s(pid, within_s=0.2) <= 0.01)
        assert processor_s(pid, within_s=5.0) < 0.05
        service.popen.send_signal(signal.SIGINT)
        assert service.wait() == 0
