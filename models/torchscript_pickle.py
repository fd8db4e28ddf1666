"""What a pickle in a TorchScript file refers to: its instructions are read, and none is carried out.

Source: torch/csrc/jit/serialization/unpickler.cpp of PyTorch, which takes these instructions and names.
"""

import pickletools
import re
from collections.abc import Iterator

from models.errors import ArchiveInvalid

INSTRUCTIONS = frozenset(
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
        *("BINFLOAT", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPENDS", "LIST", "EMPTY_DICT", "SETITEM", "SETITEMS", "DICT"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "NEWOBJ", "BUILD", "REDUCE", "BINPERSID"),
    }
)
DTYPES = (
    *("Bool", "Byte", "Char", "Short", "Int", "Long", "UInt16", "UInt32", "UInt64", "Half", "BFloat16", "Float"),
    *("Double", "ComplexHalf", "ComplexFloat", "ComplexDouble", "QInt8", "QUInt8", "QInt32"),
    *("Float8_e4m3fn", "Float8_e4m3fnuz", "Float8_e5m2", "Float8_e5m2fnuz", "Float8_e8m0fnu"),
)
# As the instruction names them, without what `torch.distributed.rpc` would reach.
GLOBALS = frozenset(
    {
        "builtins complex",
        "collections OrderedDict",
        "torch device",
        *(f"torch {dtype}Storage" for dtype in DTYPES),
        *(f"torch per_{scheme}" for scheme in ("tensor_affine", "tensor_symmetric")),
        *(f"torch per_channel_{scheme}" for scheme in ("affine", "symmetric", "affine_float_qparams")),
        *(f"torch._utils _rebuild_{kind}" for kind in ("tensor_v2", "qtensor", "sparse_tensor")),
        *(f"torch.jit._pickle build_{kind}list" for kind in ("int", "tensor", "double", "bool")),
        "torch.jit._pickle build_tensor_from_id",
        "torch.jit._pickle restore_type_tag",
    }
)

OWN_NAME = re.compile(r"__torch__(\.\w+)+", re.ASCII)


def paths_in(path: str, pickle: bytes) -> Iterator[str]:
    """Yield what a pickle refers to of the code beside it, as `__torch__.module.Name`.

    Raises:
        ArchiveInvalid: It is damaged, or refers to anything else than plain values, tensors and that.
    """
    try:
        for instruction, argument, _ in pickletools.genops(pickle):
            if instruction.name not in INSTRUCTIONS:
                raise ArchiveInvalid(f"{path}: torch writes no {instruction.name}")
            if instruction.name != "GLOBAL" or argument in GLOBALS:
                continue
            name = str(argument).replace(" ", ".")
            if not OWN_NAME.fullmatch(name):
                raise ArchiveInvalid(f"{path} refers to {name!r}, which has no place in a model")
            yield name
    except (ValueError, IndexError) as error:  # genops lets both through.
        raise ArchiveInvalid(f"{path} is damaged: {error}") from error
