"""TorchScript files as nobody's `torch.jit.save` would write them: taken apart, and put together another way."""

import io
import warnings
import zipfile
from collections.abc import Iterable

import torch
from torch import Tensor, nn

CODE = "archive/code/__torch__/tests/archives.py"
BODY = "    return x\n"
HEAD = "code/__torch__/tests/archives.py, line "

Entries = dict[str, bytes]


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def saved(module: nn.Module) -> bytes:
    """What `torch.jit.save` writes of a module."""
    made = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
    buffer = io.BytesIO()
    torch.jit.save(made, buffer)
    return buffer.getvalue()


def entries_of(content: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def plain() -> Entries:
    """The entries of a module that returns what it is given."""
    return entries_of(saved(Plain()))


def coded(body: str, beside: str = "") -> bytes:
    """That module with other code.

    Args:
        body: Of its method, which is given a tensor x.
        beside: After its class.
    """
    entries = plain()
    source = entries[CODE].decode()
    assert source.endswith(BODY)
    entries[CODE] = (source.removesuffix(BODY) + body + "\n" + beside).encode()
    return zipped(entries.items())
