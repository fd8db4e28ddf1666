"""The path of a file inside a bundle, as its manifest lists it."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from models.errors import PathEscapes


def check_contained(path: str) -> str:
    """Return `path` if it is a plain relative path that stays inside the bundle.

    Raises:
        PathEscapes: It is absolute, holds `..`, a backslash, a NUL, or is not in its shortest form.
    """
    parts = PurePosixPath(path)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path
    if unsafe or not parts.parts or str(parts) != path:
        raise PathEscapes(f"the path {path!r} is not a plain path inside the bundle")
    return path


BundlePath = Annotated[str, AfterValidator(check_contained)]
