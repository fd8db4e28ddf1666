"""TorchServe: as many workers as cores, one thread each, with batching; its request log is left off."""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import user_code
from model_archiver.model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from user_code import FILES, read_options

HERE = Path(__file__).parent
MODEL = "classifier"


def archive(folder: Path, store: Path) -> None:
    """Package a model with its handler, as TorchServe wants it."""
    extra = [*(folder / name for name in FILES if (folder / name).exists()), Path(user_code.__file__)]
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            model_name=MODEL,
            version="1.0",
            handler=str(HERE / "handler.py"),
            extra_files=",".join(map(str, extra)),
            archive_format="no-archive",
            export_path=str(store),
        )
    )


def free_ports(count: int) -> list[int]:
    """Find ports for the services that TorchServe starts besides."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_properties(file: Path, store: Path, port: int, workers: int) -> None:
    """Write TorchServe's configuration."""
    management, metrics, grpc_inference, grpc_management = free_ports(4)
    model = {
        "defaultVersion": True,
        "marName": MODEL,
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": 8,
        "maxBatchDelay": 5,
    }
    properties = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_port": grpc_inference,
        "grpc_management_port": grpc_management,
        "model_store": store,
        "load_models": MODEL,
        # Bodies are bytes, whatever their content type.
        "decode_input_request": "false",
        "models": json.dumps({MODEL: {"1.0": model}}),
    }
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def main() -> None:
    """Become TorchServe."""
    options = read_options()
    scratch = Path(tempfile.mkdtemp(dir=options.folder))
    store = scratch / "store"
    store.mkdir()
    archive(options.folder, store)
    properties = scratch / "config.properties"
    write_properties(properties, store, options.port, options.threads)
    os.chdir(scratch)
    command = ["-m", "ts.model_server", "--start", "--foreground", "--ncs", "--disable-token-auth"]
    files = ["--ts-config", str(properties), "--log-config", str(HERE / "log4j2.xml")]
    os.execv(sys.executable, [sys.executable, *command, *files])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
