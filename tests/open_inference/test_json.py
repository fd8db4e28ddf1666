"""Tensors in JSON: taken nested and flat, and refused where they are not what they say."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.open_inference.target import Target, outputs, same


def test_nested_and_flat_are_the_same(target: Target) -> None:
    values = target.values(2)
    nested = target.infer({"inputs": [target.tensor(values)]})
    flat = target.infer({"inputs": [target.tensor(values, data=values.ravel().tolist())]})
    assert same(outputs(nested), outputs(flat))


def test_items_are_answered_in_order(target: Target) -> None:
    together = outputs(target.infer(target.request(3)))
    for index, row in enumerate(target.values(3)):
        alone = outputs(target.infer({"inputs": [target.tensor(row[None])]}))
        assert same(alone, {name: values[index : index + 1] for name, values in together.items()})


def test_outputs_are_as_the_metadata_says(target: Target) -> None:
    found = target.infer(target.request(2)).json()["outputs"]
    assert [output["name"] for output in found] == target.output_names
    for output, said in zip(found, target.metadata["outputs"], strict=True):
        assert output["datatype"] == said["datatype"]
        assert [wanted for wanted in said["shape"] if wanted != -1] == [
            size for size, wanted in zip(output["shape"], said["shape"], strict=True) if wanted != -1
        ]
        assert np.array(output["data"]).size == math.prod(output["shape"])


def test_one_output_may_be_wanted_alone(target: Target) -> None:
    everything = outputs(target.infer(target.request()))
    for name in target.output_names:
        assert same(outputs(target.infer(target.request(outputs=[{"name": name}]))), {name: everything[name]})


def test_outputs_come_in_the_order_that_was_asked(target: Target) -> None:
    names = target.output_names[::-1]
    assert list(outputs(target.infer(target.request(outputs=[{"name": name} for name in names])))) == names


def test_unknown_outputs_and_ones_wanted_twice_are_refused(target: Target) -> None:
    target.refused(target.infer(target.request(outputs=[{"name": "nobody-knows-it"}])))
    target.refused(target.infer(target.request(outputs=[{"name": target.output_names[0]}] * 2)))


def broken(name: str, change: Callable[[dict[str, Any]], object], status: int = 400) -> Any:
    return pytest.param(change, status, id=name)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        broken("one element too few", lambda tensor: tensor | {"data": np.ravel(tensor["data"]).tolist()[1:]}),
        broken("one element too many", lambda tensor: tensor | {"data": [*np.ravel(tensor["data"]).tolist(), 1]}),
        broken("ragged", lambda tensor: tensor | {"data": [tensor["data"][0][1:], *tensor["data"]]}),
        broken("ragged within", lambda tensor: tensor | {"data": [tensor["data"][0], [tensor["data"][0]]]}),
        broken("a number among lists", lambda tensor: tensor | {"data": [1, tensor["data"]]}),
        broken("no list", lambda tensor: tensor | {"data": 1}),
        broken("an object", lambda tensor: tensor | {"data": {"0": 1}}),
        broken("nothing", lambda tensor: tensor | {"data": None}),
        broken("no data", lambda tensor: {name: tensor[name] for name in ("name", "shape", "datatype")}),
        broken("no shape", lambda tensor: {name: tensor[name] for name in ("name", "data", "datatype")}),
        broken("no datatype", lambda tensor: {name: tensor[name] for name in ("name", "data", "shape")}),
        broken("no name", lambda tensor: {name: tensor[name] for name in ("shape", "data", "datatype")}),
        broken("another name", lambda tensor: tensor | {"name": "nobody-knows-it"}),
        broken("no datatype of the protocol", lambda tensor: tensor | {"datatype": "COMPLEX64"}),
        broken("another datatype", lambda tensor: tensor | {"datatype": "INT16"}),
        broken("strings", lambda tensor: tensor | {"data": ["1"] * np.size(tensor["data"])}),
        broken("nulls", lambda tensor: tensor | {"data": [None] * np.size(tensor["data"])}),
        broken("halves", lambda tensor: tensor | {"data": [1.5] * np.size(tensor["data"])}),
        broken("huge numbers", lambda tensor: tensor | {"data": [10**400] * np.size(tensor["data"])}),
        broken("just too large", lambda tensor: tensor | {"data": [2**63] * np.size(tensor["data"])}),
        broken("shape negative", lambda tensor: tensor | {"shape": [-size for size in tensor["shape"]]}),
        broken("shape minus one", lambda tensor: tensor | {"shape": [-1, *tensor["shape"][1:]]}),
        broken("shape huge", lambda tensor: tensor | {"shape": [2**60, *tensor["shape"][1:]]}, 413),
        broken("shape overflows to nothing", lambda tensor: tensor | {"shape": [2**32, 2**32, *tensor["shape"]]}),
        broken("shape beyond any integer", lambda tensor: tensor | {"shape": [10**400, *tensor["shape"][1:]]}),
        broken("more dimensions than any", lambda tensor: tensor | {"shape": [1] * 100_000}),
        broken("a last dimension of thousands of digits", lambda tensor: tensor | {"shape": [1, 10**4298]}),
        broken("shape of halves", lambda tensor: tensor | {"shape": [1.5, *tensor["shape"][1:]]}),
        broken("shape of strings", lambda tensor: tensor | {"shape": [str(size) for size in tensor["shape"]]}),
        broken("shape of no rank", lambda tensor: tensor | {"shape": [], "data": [1]}),
        broken("another rank", lambda tensor: tensor | {"shape": [*tensor["shape"], 1]}),
        broken("no items", lambda tensor: tensor | {"shape": [0, *tensor["shape"][1:]], "data": []}),
        broken("empty items", lambda tensor: tensor | {"shape": [1, *[0] * len(tensor["shape"][1:])], "data": []}),
    ],
)
def test_an_input_that_is_not_what_it_says_is_refused(
    target: Target, change: Callable[[dict[str, Any]], object], status: int
) -> None:
    target.refused(target.infer({"inputs": [change(target.tensor(target.values()))]}), status)


def test_missing_extra_and_repeated_inputs_are_refused(target: Target) -> None:
    tensor = target.tensor(target.values())
    wrong: list[Any] = [[], [tensor] * 2, [tensor, tensor | {"name": "nobody-knows-it"}], [None], {}, "x", None]
    for inputs in wrong:
        target.refused(target.infer({"inputs": inputs}))
    target.refused(target.infer({}))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}{}",
        b'{"inputs": [NaN]}',
        b"\xff\xfe\xfd",
        b'{"id": "\xc3\x28", "inputs": []}',
        b'{"id": "\\ud800", "inputs": []}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"inputs": ' + b"[" * 150 + b"]" * 150 + b"}",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_request_is_refused(target: Target, text: bytes) -> None:
    target.refused(target.infer_text(text))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "0x1", "01", "+1"])
def test_numbers_that_json_does_not_have_are_refused(target: Target, literal: str) -> None:
    values = target.values()
    text = json.dumps({"inputs": [target.tensor(values, data=["here"])]})
    target.refused(target.infer_text(text.replace('"here"', ",".join([literal] * values.size))))


def test_deep_data_is_refused(target: Target) -> None:
    text = json.dumps({"inputs": [target.tensor(target.values(), data=["here"])]})
    for depth in (70, 150, 100_000):
        target.refused(target.infer_text(text.replace('"here"', "[" * depth + "1" + "]" * depth)))
