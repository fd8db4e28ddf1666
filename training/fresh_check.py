"""The golden check in a fresh process: nothing that training holds in memory can help a bundle pass.

Run as a program it is that process: `python -m training.fresh_check DIRECTORY`.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from models.bundle import Bundle
from models.errors import ModelsError
from models.golden import check_golden
from models.openvino_graph import OpenVinoGraph
from training.errors import GateFailed
from training.export import Exported

TIMEOUT_S = 300


def check_in_fresh_process(directory: Path) -> None:
    """Have a new Python process verify the staged bundle, load it and run its golden check.

    Raises:
        GateFailed: It did not succeed; with its last line.
    """
    command = [sys.executable, "-m", "training.fresh_check", str(directory.absolute())]
    root = Path(__file__).resolve().parent.parent
    try:
        subprocess.run(  # noqa: S603 (this very interpreter, no shell)
            command, cwd=root, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise GateFailed(f"golden check in a fresh process: {reason}") from error
    except subprocess.TimeoutExpired as error:
        raise GateFailed(f"golden check in a fresh process: no answer in {TIMEOUT_S} s") from error


def main(directory: Path) -> None:
    """Verify, load and freeze a bundle as serving would, and run its golden check.

    Raises:
        BundleError: With what is off.
        GateFailed: The file cannot be frozen.
    """
    bundle = Bundle.open(directory)
    for backend in bundle.manifest.backends:
        if backend.weights is not None:
            graph = OpenVinoGraph(bundle.read(backend.file), bundle.read(backend.weights), backend.precision, 2)
            for threads in (1, 2):
                check_golden(bundle, backend, partial(graph, threads=threads))
            continue
        exported = Exported(bundle.read(backend.file))
        # The golden answers are those of the file as it was exported; what is served is frozen.
        exported.freeze(torch.device("cpu"))
        check_golden(bundle, backend, exported.run)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (ModelsError, GateFailed) as error:
        raise SystemExit(str(error)) from None
