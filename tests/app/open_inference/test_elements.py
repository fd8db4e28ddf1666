"""Elements of every datatype come through JSON and binary data as they went in."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.errors import InvalidRequest
from app.open_inference.datatypes import BYTES, DTYPES
from app.open_inference.elements import from_binary, from_json, to_binary, to_json

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
EXTREMES: dict[str, list[Any]] = {
    "BOOL": [False, True],
    "UINT8": [0, 2**8 - 1],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 0, 6e-8],
    "FP32": [-3.4028234663852886e38, 0, 1.401298464324817e-45],
    "FP64": [-1.7976931348623157e308, 5e-324],
}


@pytest.mark.parametrize("datatype", DTYPES)
@given(data=st.data())
def test_numbers_come_through(datatype: str, data: st.DataObject) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if DTYPES[datatype].kind == "f" else {}
    values = data.draw(arrays.arrays(DTYPES[datatype], SHAPES, elements=finite or None))
    in_json = json.loads(json.dumps(to_json(values)))
    assert np.array_equal(from_json("x", datatype, values.shape, in_json), values)
    if values.ndim and values.size:
        assert np.array_equal(from_json("x", datatype, values.shape, values.tolist()), values)
    binary = from_binary("x", datatype, values.shape, memoryview(to_binary(values)))
    assert np.array_equal(binary, values)
    assert getattr(binary, "dtype") == DTYPES[datatype]  # noqa: B009 (a list has none)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_texts_come_through(texts: list[str]) -> None:
    elements = [text.encode() for text in texts]
    assert from_json("x", BYTES, [len(texts)], texts) == elements
    assert to_json(elements) == texts
    assert from_binary("x", BYTES, [len(texts)], memoryview(to_binary(elements))) == elements


@given(st.lists(st.binary(), max_size=5))
def test_bytes_come_through(elements: list[bytes]) -> None:
    assert from_binary("x", BYTES, [len(elements), 1], memoryview(to_binary(elements))) == elements


@given(st.binary(max_size=40), st.integers(0, 5))
def test_no_bytes_do_worse_than_a_refusal(data: bytes, count: int) -> None:
    for datatype in (*DTYPES, BYTES):
        try:
            elements = from_binary("x", datatype, [count], memoryview(data))
        except InvalidRequest:
            continue
        assert len(elements) == count


@pytest.mark.parametrize("datatype", EXTREMES)
def test_the_ends_of_each_range_are_taken_and_what_is_beyond_is_not(datatype: str) -> None:
    extremes = EXTREMES[datatype]
    assert from_json("x", datatype, [len(extremes)], extremes).tolist() == pytest.approx(extremes, rel=1e-2)  # type: ignore[union-attr]
    if datatype == "BOOL":
        beyond: list[Any] = [0, 1, "true", None]
    else:
        beyond = [2 * extremes[0] - 1 if extremes[0] else -1, 2**65 if "INT" in datatype else 10**400, True, "1"]
    for value in beyond:
        with pytest.raises(InvalidRequest, match=r"^x: "):
            from_json("x", datatype, [1], [value])


def test_a_boolean_is_a_byte_of_0_or_1() -> None:
    with pytest.raises(InvalidRequest, match="0 or 1"):
        from_binary("x", "BOOL", [2], memoryview(b"\0\2"))
