"""A request's inputs -> the items that a model is asked about: a tensor's rows, or the elements of BYTES.

An image or text may come as the model's own tensor, or encoded, as BYTES of shape [N] or [N, 1].
"""

import math
from collections.abc import Sequence

import numpy as np

from app.bodies import BodyLimits, check_count, text_item
from app.errors import InvalidRequest, TextTooLong
from app.items import Item
from app.open_inference import elements
from app.open_inference.datatypes import BYTES, DTYPES
from app.open_inference.request import WIDEST_CHAR_BYTES, Parsed
from app.open_inference.schemas import InputTensor
from app.open_inference.signature import VARIABLE, Spec
from models.image_structure import begins_as_image
from models.repository import InputKind

NO_ITEMS = "the shape has no items: its first dimension is 0"


def items_of(parsed: Parsed, spec: Spec, kind: InputKind, limits: BodyLimits) -> list[Item]:
    """Turn the inputs of a request into items.

    Args:
        parsed: The request.
        spec: Of the model's input.
        kind: What the model takes.
        limits: How much a request may hold.

    Raises:
        InvalidRequest: They are not what the model takes.
        TooManyItems, TextTooLong: They are over the limits.
    """
    _check_names([tensor.name for tensor in parsed.request.inputs], spec.name)
    tensor, binary = parsed.request.inputs[0], parsed.binary[0]
    _check_type(tensor, spec)
    if not tensor.shape or tensor.shape[0] == 0:
        raise InvalidRequest(f"{spec.name}: {NO_ITEMS}")
    check_count(tensor.shape[0], limits.max_items)
    if binary is not None:
        values = elements.from_binary(spec.name, tensor.datatype, tensor.shape, binary)
    else:
        values = elements.from_json(spec.name, tensor.datatype, tensor.shape, tensor.data or [])
    if not isinstance(values, list):
        return [Item(kind, b"", array=row) for row in values]
    # JSON has no bytes, so an image stands in it as base64.
    return [_encoded(element, kind, limits, base64=binary is None) for element in values]


def raw_item(body: bytes, spec: Spec, kind: InputKind) -> Item:
    """Turn a body that is nothing but one tensor into an item; where an image is asked for, or an image file.

    Raises:
        InvalidRequest: It is not what the model takes.
    """
    dtype = DTYPES[spec.datatype]
    shape = spec.shape[1:]
    fixed = math.prod(size for size in shape if size != VARIABLE) * dtype.itemsize
    # A file may happen to have as many bytes as the tensor.
    if kind == "image" and (len(body) != fixed or begins_as_image(body)):
        return Item(kind, body)
    if len(body) % fixed or (VARIABLE not in shape and len(body) != fixed):
        raise InvalidRequest(f"body: {len(body)} bytes are no {spec.datatype} tensor of shape {list(shape)}")
    return Item(kind, b"", array=np.frombuffer(body, dtype).reshape(shape))


def _check_names(names: Sequence[str], wanted: str) -> None:
    if foreign := [name for name in names if name != wanted]:
        raise InvalidRequest(f"inputs: {foreign[0][:80]!r} is not taken; the model takes one, {wanted!r}")
    if len(names) > 1:
        raise InvalidRequest(f"inputs: {wanted!r} is given {len(names)} times")


def _check_type(tensor: InputTensor, spec: Spec) -> None:
    name, shape = spec.name, tensor.shape
    if tensor.datatype == BYTES:
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise InvalidRequest(f"{name}: shape {shape} is not [N] or [N, 1], as BYTES must be")
    elif tensor.datatype != spec.datatype:
        raise InvalidRequest(f"{name}: {tensor.datatype} is not taken; send {spec.datatype} or BYTES")
    elif not spec.takes(shape):
        raise InvalidRequest(f"{name}: shape {shape} is not taken; send {list(spec.shape)}, -1 being any")


def _encoded(element: bytes, kind: InputKind, limits: BodyLimits, *, base64: bool) -> Item:
    if kind == "image":
        return Item("image", element, base64=base64)
    if len(element) > WIDEST_CHAR_BYTES * limits.max_text_chars:
        raise TextTooLong(f"a text has {len(element)} bytes; {limits.max_text_chars} characters are allowed")
    try:
        return text_item(element.decode(), limits)
    except UnicodeDecodeError:
        raise InvalidRequest("a text is not UTF-8") from None
