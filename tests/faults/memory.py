"""The memory of a process, as the system tells it."""

from pathlib import Path


def resident_mb(pid: int) -> float:
    """Return what it has in memory, in MB of 10^6 bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / 1e6
