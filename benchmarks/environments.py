"""An environment of its own for each peer, made when it is first asked for and made anew when its list changes."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LIST = "import importlib.metadata as m\nfor each in m.distributions(): print(each.name + '==' + each.version)"
ENVIRONMENTS = Path(__file__).with_name(".build") / "environments"
JAVA_VERSION = 17


def python_of(name: str, requirements: Path) -> Path:
    """Return the interpreter of a peer's environment.

    uv links files of one cache into all of them, so that torch lies on the disk once.

    Args:
        name: The peer's.
        requirements: What its environment holds, exactly.

    Raises:
        CalledProcessError: It cannot be installed; with uv's own words.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making the environment of {name}", file=sys.stderr)
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
    # Compiled: how long a server takes to start must not depend on whether this process may write bytecode.
    target = ["--python", str(python), "--requirements", str(requirements)]
    install = [*uv, "pip", "install", "--quiet", "--compile-bytecode", *target]
    _run(install)
    (folder / ".ready").touch()
    return python


def versions_of(name: str, requirements: Path | None) -> dict[str, str]:
    """Return the versions of everything in a peer's environment, or in this one."""
    python = python_of(name, requirements) if requirements else Path(sys.executable)
    return dict(sorted(line.split("==", 1) for line in _run([str(python), "-c", LIST]).split()))


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lack_of_java() -> str | None:
    """Say what is wrong with this machine's Java for a peer that runs on it; None if nothing is."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        return f"it needs Java {JAVA_VERSION} or later, and there is none"
    said = subprocess.run([java, "-version"], check=False, capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', said)
    if found and int(found[1]) >= JAVA_VERSION:
        return None
    return f"it needs Java {JAVA_VERSION} or later, not {said.splitlines()[0] if said else java}"
