"""Small libraries in C that stand between a process and its system, for as long as a test runs it."""

import shutil
import subprocess
from pathlib import Path

import pytest


def built(source: Path, directory: Path) -> Path:
    """Compile a library to be preloaded; where there is no compiler, the test is skipped.

    Args:
        source: The C file.
        directory: Where the library is put.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(f"there is no C compiler to build {source.name} with")
    library = directory / source.with_suffix(".so").name
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-o", library], check=True)
    return library
