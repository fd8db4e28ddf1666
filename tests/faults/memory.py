"""The memory of a process, as the system tells it."""

from pathlib import Path


def resident_mb(pid: int) -> float:
    """Return what it has in memory, in MB of 10^6 bytes."""
    return _told_mb(f"/proc/{pid}/status", "VmRSS")


def peak_mb(*, anew: bool = False) -> float:
    """Return the most that this process ever had in memory, in MB of 10^6 bytes; `anew`: counted from now on."""
    if anew:
        # Linux, proc(5): 5 sets the peak to what is resident.
        Path("/proc/self/clear_refs").write_text("5")
    return _told_mb("/proc/self/status", "VmHWM")


def _told_mb(file: str, name: str) -> float:
    (line,) = [line for line in Path(file).read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024 / 1e6
