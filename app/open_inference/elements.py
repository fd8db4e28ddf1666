"""A tensor's elements: out of JSON and binary data, and into them.

Sources: Open Inference Protocol, "Tensor Data", and Triton's binary tensor data extension.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from app.errors import InvalidRequest
from app.open_inference.datatypes import BYTES, DTYPES, Elements

LENGTH = struct.Struct("<I")  # of an element of BYTES, before it

# What JSON has for a kind of elements, by numpy's letter. true is no number here.
_JSON_TYPES: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "u": frozenset({int}),
    "i": frozenset({int}),
    "f": frozenset({int, float}),
}


def from_json(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Elements:
    """Read the elements that stand in a request's JSON.

    Args:
        name: The tensor's, for errors.
        datatype: One of the protocol's.
        shape: The tensor's; row-major.
        data: Flat, or nested just as the shape says.

    Raises:
        InvalidRequest: They are of another number, shape or type than was said.
    """
    flat = _flat(name, shape, data)
    _check_count(name, len(flat), shape)
    found = set(map(type, flat))
    if datatype == BYTES:
        if found - {str}:
            raise InvalidRequest(f"{name}: in JSON an element of BYTES is a string")
        return [_utf8(name, text) for text in flat]
    dtype = DTYPES[datatype]
    if foreign := found - _JSON_TYPES[dtype.kind]:
        raise InvalidRequest(f"{name}: {min(each.__name__ for each in foreign)} is no element of {datatype}")
    try:
        with np.errstate(over="ignore"):
            # Numbers of FP16 and FP32 are first read as JSON has them, to see whether they fit.
            values = np.array(flat, dtype=np.float64 if dtype.kind == "f" else dtype).astype(dtype)
    except OverflowError:
        raise _out_of_range(name, datatype) from None
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise _out_of_range(name, datatype)
    return values.reshape(tuple(shape))


def from_binary(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Elements:
    """Read the elements that follow a request's JSON.

    Args:
        name: As of `from_json`.
        datatype: As of `from_json`.
        shape: As of `from_json`.
        data: Exactly theirs.

    Raises:
        InvalidRequest: They are not of the size that datatype and shape say.
    """
    if datatype == BYTES:
        return _split(name, shape, data)
    dtype, count = DTYPES[datatype], math.prod(shape)
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"{name}: has {len(data)} bytes of binary data; shape {list(shape)} of {datatype} takes "
            f"{count * dtype.itemsize}"
        )
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise InvalidRequest(f"{name}: an element of BOOL is a byte of 0 or 1")
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def to_json(elements: Elements) -> list[Any]:
    """Return elements as a reply's JSON has them: flat."""
    if isinstance(elements, list):
        return [element.decode() for element in elements]
    flat: list[Any] = elements.ravel().tolist()
    return flat


def to_binary(elements: Elements) -> bytes:
    """Return elements as they follow a reply's JSON."""
    if isinstance(elements, list):
        return b"".join(LENGTH.pack(len(element)) + element for element in elements)
    return elements.astype(elements.dtype.newbyteorder("<"), copy=False).tobytes()


def _flat(name: str, shape: Sequence[int], data: Sequence[Any]) -> Sequence[Any]:
    if len(shape) < 2 or not data or type(data[0]) is not list:
        return data
    level: list[Any] = [data]
    for size in shape:
        if not all(type(each) is list and len(each) == size for each in level):
            raise InvalidRequest(f"{name}: data is neither flat nor nested as shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def _check_count(name: str, found: int, shape: Sequence[int]) -> None:
    if found != math.prod(shape):
        raise InvalidRequest(f"{name}: has {found} elements; shape {list(shape)} takes {math.prod(shape)}")


def _out_of_range(name: str, datatype: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: an element is outside the range of {datatype}")


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, escaped
        raise InvalidRequest(f"{name}: a string is no Unicode text") from None


def _split(name: str, shape: Sequence[int], data: memoryview) -> list[bytes]:
    elements: list[bytes] = []
    at, count = 0, math.prod(shape)
    while at < len(data):
        begin = at + LENGTH.size
        end = begin + LENGTH.unpack_from(data, at)[0] if begin <= len(data) else begin
        if end > len(data):
            raise InvalidRequest(f"{name}: binary data ends within an element of BYTES")
        if len(elements) == count:
            raise InvalidRequest(f"{name}: has more elements than the {count} that shape {list(shape)} takes")
        elements.append(bytes(data[begin:end]))
        at = end
    _check_count(name, len(elements), shape)
    return elements
