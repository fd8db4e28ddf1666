"""What a measurement was made on."""

import os
import platform
import subprocess
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

CPU_FACTS = Path("/proc/cpuinfo")
ROOT = Path(__file__).resolve().parent.parent


class Machine(BaseModel):
    """A machine and the programs on it; `commit` is None outside a checkout."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    cores: int
    threads: int
    device: str
    torch: str
    python: str
    commit: str | None


def this_machine(device: torch.device) -> Machine:
    """Describe this machine and the device that is trained on."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        python=platform.python_version(),
        commit=git_commit(),
    )


def git_commit() -> str | None:
    """Return the commit of the checkout, marked if it was changed since; None outside of one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty", "--abbrev=40"],  # noqa: S607 (git is found on PATH)
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def _cpu() -> str:
    # Python's own answer is empty on Linux.
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
