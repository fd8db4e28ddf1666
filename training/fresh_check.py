"""The golden check in a fresh process: nothing that training holds in memory can help a bundle pass.

Run as a program it is that process: `python -m training.fresh_check DIRECTORY OPERATORS`.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from models.backend import Backend
from models.bundle import Bundle
from models.errors import ModelsError
from models.golden import check_golden
from models.operators import NO_OTHERS, parse_operators
from models.runnable import Run, runnable
from training.errors import GateFailed

TIMEOUT_S = 300
# That the service may give a batch which is alone.
THREADS = 2


def check_in_fresh_process(directory: Path, allowed: frozenset[str] = NO_OTHERS) -> None:
    """Have a new Python process verify the staged bundle, load it and run its golden check.

    Args:
        directory: The bundle's.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.

    Raises:
        GateFailed: It did not succeed; with its last line.
    """
    command = [sys.executable, "-m", "training.fresh_check", str(directory.absolute()), ",".join(allowed)]
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


def main(directory: Path, allowed: frozenset[str] = NO_OTHERS) -> None:
    """Verify and load a bundle as serving would, and run its golden check on each of its backends.

    Args:
        directory: The bundle's.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.

    Raises:
        BundleError: With what is off.
        GateFailed: A file cannot be loaded, or cannot be frozen.
    """
    bundle = Bundle.open(directory)
    for backend in bundle.manifest.backends:
        run = _runnable(backend, bundle, allowed)
        # Both ways that a batch may be run.
        for threads in (1, THREADS):
            check_golden(bundle, backend, partial(run, threads=threads))


def _runnable(backend: Backend, bundle: Bundle, allowed: frozenset[str]) -> Run:
    # The golden answers are those of the file as it was exported; what is served is frozen.
    try:
        return runnable(backend, bundle.read, torch.device("cpu"), THREADS, allowed)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise GateFailed(f"{backend.id} cannot be loaded for serving: {reason}") from error


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), parse_operators(sys.argv[2]))
    except (ModelsError, GateFailed) as error:
        raise SystemExit(str(error)) from None
