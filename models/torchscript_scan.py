"""Whether a TorchScript file uses operators that compute, and no other; found out before torch sees it.

It is defence in depth, not a sandbox: torch's own reader and kernels have faults too.
"""

from collections.abc import Mapping

import torch

from models.errors import ArchiveInvalid, OperatorsNotAllowed
from models.operators import ALLOW_VARIABLE, NO_OTHERS, OPERATORS
from models.torchscript_archive import read_archive
from models.torchscript_code import Place, References
from models.torchscript_pickle import paths_in

NAMED = 5
# Types of which nothing on the list makes a value.
NEVER_THERE = ("Future", "Generator", "RRef")


def check_operators(content: bytes, allowed: frozenset[str] = NO_OTHERS) -> None:
    """Refuse a TorchScript file that could do more than compute.

    Args:
        content: The file.
        allowed: What it may use besides `models.operators.OPERATORS`.

    Raises:
        ArchiveInvalid: It is not as torch writes it.
        OperatorsNotAllowed: It uses others; with where.
    """
    try:
        archive = read_archive(content)
        references = References()
        for path, source in archive.sources.items():
            references.add_source(path, source)
        for path, pickle in archive.pickles.items():
            for name in paths_in(path, pickle):
                references.add_path(name, Place(path))
        foreign = {
            name: place
            for name, place in references.operators(_is_method).items()
            if name not in OPERATORS and name not in allowed
        }
    except ArchiveInvalid as error:
        raise ArchiveInvalid(
            f"the TorchScript file is not as torch.jit.save writes it: {error}; have its maker save it anew"
        ) from error
    if foreign:
        raise OperatorsNotAllowed(_complaint(foreign, allowed))


def _complaint(foreign: Mapping[str, Place], allowed: frozenset[str]) -> str:
    told = [f"{name} ({place})" for name, place in sorted(foreign.items())[:NAMED]]
    if len(foreign) > NAMED:
        told.append(f"{len(foreign) - NAMED} more")
    return (
        f"the model uses what is not on the list of operators that only compute: {', '.join(told)}; if you trust "
        f"whoever made it, set {ALLOW_VARIABLE}={','.join(sorted(foreign.keys() | allowed))}"
    )


def _is_method(name: str) -> bool:
    """Whether torch has an operator of that name that is a method of values which a model may have."""
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    owners = [str(each.type) for schema in schemas for each in schema.arguments if each.name == "self"]
    return any(not owner.startswith(NEVER_THERE) for owner in owners)
