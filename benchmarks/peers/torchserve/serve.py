"""TorchServe: as many workers for each model as cores, one thread each, with batching; no log of requests."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import user_code
from model_archiver.model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from user_code import FILES, models_in, read_options

HERE = Path(__file__).parent
VERSION = "1.0"


def archive(model: str, folder: Path, store: Path) -> None:
    """Package a model with its handler, as TorchServe wants it."""
    extra = [*(folder / name for name in FILES if (folder / name).exists()), Path(user_code.__file__)]
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            model_name=model,
            version=VERSION,
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


def write_properties(file: Path, store: Path, models: Sequence[str], port: int, workers: int) -> None:
    """Write TorchServe's configuration."""
    management, metrics, grpc_inference, grpc_management = free_ports(4)
    alike = {
        "defaultVersion": True,
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
        "load_models": ",".join(models),
        # Bodies are bytes, whatever their content type.
        "decode_input_request": "false",
        "models": json.dumps({model: {VERSION: {"marName": model, **alike}} for model in models}),
    }
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def main() -> None:
    """Become TorchServe."""
    options = read_options()
    scratch = Path(tempfile.mkdtemp(dir=options.folder))
    # There the archiver clears a folder of the model's name, which the models' own must not be.
    tempfile.tempdir = str(scratch)
    store = scratch / "store"
    store.mkdir()
    models = models_in(options.folder)
    for model, folder in models.items():
        archive(model, folder, store)
    properties = scratch / "config.properties"
    write_properties(properties, store, list(models), options.port, options.threads)
    os.chdir(scratch)
    command = ["-m", "ts.model_server", "--start", "--foreground", "--ncs", "--disable-token-auth"]
    files = ["--ts-config", str(properties), "--log-config", str(HERE / "log4j2.xml")]
    os.execv(sys.executable, [sys.executable, *command, *files])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
