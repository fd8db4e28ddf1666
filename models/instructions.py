"""What a backend wants of a machine, and what this one has."""

import platform

import torch

from models.backend import Requires

TORCH_VERSION: str = torch.__version__

# Sets of instructions that multiply numbers of these formats; one of them is enough.
BF16 = "avx512_bf16|amx_bf16"
INT8 = "avx512_vnni|avx_vnni|amx_int8"


def architecture() -> str:
    """Return the name of this machine's kind of processor."""
    return platform.machine()


def has_instructions(isa: str) -> bool:
    """Whether the processor has one of these sets of instructions, named as torch does, with | between them."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) is True for name in isa.split("|"))


def missing(requires: Requires, device: torch.device) -> str | None:
    """Say what a backend wants that this machine does not have; None if it has everything."""
    if requires.torch is not None and not _begins_with(TORCH_VERSION, requires.torch):
        return f"torch {requires.torch} is wanted, and this is {TORCH_VERSION}"
    if requires.arch not in (None, architecture()):
        return f"a processor of the kind {requires.arch} is wanted, and this is {architecture()}"
    if requires.isa is not None and not has_instructions(requires.isa):
        return f"the processor has no {requires.isa.replace('|', ' or ')}"
    if requires.cuda_cc is not None and device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < tuple(int(part) for part in requires.cuda_cc.split(".")):
            return f"compute capability {requires.cuda_cc} is wanted, and this is {found[0]}.{found[1]}"
    return None


def _begins_with(version: str, wanted: str) -> bool:
    parts = wanted.split(".")
    return version.partition("+")[0].split(".")[: len(parts)] == parts
