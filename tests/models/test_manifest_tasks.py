"""What a manifest must and must not say for each task."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from models.bundle import Bundle
from models.errors import ManifestInvalid, PathEscapes
from models.manifest import Manifest
from models.repository import Repository
from tests.bundles import publish, publish_texts, publish_writer

PUBLISH: dict[str, Callable[[Repository, str], Bundle]] = {
    "image-classification": publish,
    "text-classification": publish_texts,
    "text-to-text": publish_writer,
}
DECODE = {"color": "L", "size": [8, 8], "max_pixels": 100}
TOKENIZE = {"file": "model.ts.pt", "max_tokens": 8}
WRITE = {"file": "model.ts.pt", "beams": 1, "max_tokens": 8}
IMAGES, TEXTS, WRITER = PUBLISH


def fields_of(repository: Repository, task: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(PUBLISH[task](repository, "model").manifest.to_json())
    return fields


def parse(fields: dict[str, Any]) -> Manifest:
    return Manifest.parse(json.dumps(fields).encode())


def spec(*shape: int | str) -> dict[str, Any]:
    return {"name": "tensor", "dtype": "float32", "shape": shape}


@pytest.mark.parametrize("task", PUBLISH)
def test_a_manifest_of_each_task_reads_back_equal(repository: Repository, task: str) -> None:
    manifest = PUBLISH[task](repository, "model").manifest
    assert manifest.task == task
    assert Manifest.parse(manifest.to_json()) == manifest


@pytest.mark.parametrize("task", PUBLISH)
@pytest.mark.parametrize("other", PUBLISH)
def test_a_manifest_of_one_task_is_none_of_another(repository: Repository, task: str, other: str) -> None:
    fields = fields_of(repository, task) | {"task": other}
    if task == other:
        assert parse(fields).task == task
    else:
        with pytest.raises(ManifestInvalid, match=f"(decode|tokenize|write): is (not taken|wanted) for {other}"):
            parse(fields)


@pytest.mark.parametrize(
    ("task", "change", "refusal"),
    [
        (IMAGES, {"decode": None}, "decode: is wanted"),
        (IMAGES, {"tokenize": TOKENIZE}, "tokenize: is not taken"),
        (IMAGES, {"write": WRITE}, "write: is not taken"),
        (TEXTS, {"decode": DECODE}, "decode: is not taken"),
        (TEXTS, {"tokenize": None}, "tokenize: is wanted"),
        (TEXTS, {"write": WRITE}, "write: is not taken"),
        (WRITER, {"decode": DECODE}, "decode: is not taken"),
        (WRITER, {"tokenize": None}, "tokenize: is wanted"),
        (WRITER, {"write": None}, "write: is wanted"),
    ],
)
def test_how_inputs_are_read_and_texts_written_belongs_to_the_task(
    repository: Repository, task: str, change: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(ManifestInvalid, match=f"{refusal} for {task}"):
        parse(fields_of(repository, task) | change)


@pytest.mark.parametrize(
    ("task", "labels", "refusal"),
    [
        (IMAGES, [], "labels: at least two are wanted"),
        (TEXTS, [], "labels: at least two are wanted"),
        (TEXTS, ["one"], "labels: at least two are wanted"),
        (TEXTS, ["one", "one"], "labels: two are the same"),
        (WRITER, ["one"], "labels: none are taken"),
        (WRITER, ["one", "two"], "labels: none are taken"),
    ],
)
def test_labels_belong_to_classification(
    repository: Repository, task: str, labels: list[str], refusal: str
) -> None:
    with pytest.raises(ManifestInvalid, match=refusal):
        parse(fields_of(repository, task) | {"labels": labels})


@pytest.mark.parametrize(
    ("task", "field", "specs"),
    [
        (IMAGES, "inputs", [spec("N", "L")]),
        (IMAGES, "inputs", [spec("N", 1, 8, 9)]),
        (IMAGES, "outputs", [spec("N", 2)]),
        (TEXTS, "inputs", [spec("N", 1, 8, 8)]),
        (TEXTS, "inputs", [spec("N", 8)]),
        (TEXTS, "inputs", [spec("N", "L")] * 2),
        (TEXTS, "inputs", []),
        (TEXTS, "outputs", [spec("N", 3)]),
        (TEXTS, "outputs", [spec("N", "B", "T"), spec("N", "B")]),
        (WRITER, "inputs", [spec("N", "T")]),
        (WRITER, "outputs", [spec("N", "B", "T")]),
        (WRITER, "outputs", [spec("N", "B"), spec("N", "B", "T")]),
        (WRITER, "outputs", [spec("N", "T"), spec("N")]),
        (WRITER, "outputs", []),
    ],
)
def test_shapes_are_those_of_the_task(
    repository: Repository, task: str, field: str, specs: list[dict[str, Any]]
) -> None:
    with pytest.raises(ManifestInvalid, match=f"{field}: want"):
        parse(fields_of(repository, task) | {field: specs})


@pytest.mark.parametrize(
    ("task", "change"),
    [
        (IMAGES, {"texts": ["good"]}),
        (IMAGES, {"scores": [0.5, 0.5]}),
        (TEXTS, {"texts": ["good"]}),
        (TEXTS, {"scores": [1.0]}),
        (TEXTS, {"scores": []}),
        (WRITER, {"texts": []}),
        (WRITER, {"texts": ["good", "film"], "scores": [0.5, 0.5]}),
        (WRITER, {"scores": [0.5, 0.5]}),
    ],
)
def test_golden_answers_are_those_of_the_task(repository: Repository, task: str, change: dict[str, Any]) -> None:
    fields = fields_of(repository, task)
    fields["golden"][0] |= change
    with pytest.raises(ManifestInvalid, match=r"golden: \S+ wants \d scores and [01] texts"):
        parse(fields)


@pytest.mark.parametrize(
    ("task", "part", "change"),
    [
        (TEXTS, "tokenize", {"max_tokens": 0}),
        (TEXTS, "tokenize", {"max_tokens": 65_537}),
        (TEXTS, "tokenize", {"max_tokens": None}),
        (TEXTS, "tokenize", {"truncate": "perhaps"}),
        (TEXTS, "tokenize", {"lowercase": True}),
        (WRITER, "write", {"beams": 0}),
        (WRITER, "write", {"beams": 65}),
        (WRITER, "write", {"max_tokens": 0}),
        (WRITER, "write", {"max_tokens": 65_537}),
        (WRITER, "write", {"truncate": True}),
    ],
)
def test_a_limit_that_is_off_is_named(
    repository: Repository, task: str, part: str, change: dict[str, Any]
) -> None:
    fields = fields_of(repository, task)
    fields[part] |= change
    with pytest.raises(ManifestInvalid, match=rf"{part}\.{next(iter(change))}: "):
        parse(fields)


@pytest.mark.parametrize(
    ("task", "file"),
    [(TEXTS, "tokenizer.json"), (TEXTS, "0.txt"), (WRITER, "tokenizer.json"), (WRITER, "target_tokenizer.json")],
)
def test_the_files_of_a_text_model_must_be_listed(repository: Repository, task: str, file: str) -> None:
    fields = fields_of(repository, task)
    del fields["files"][file]
    with pytest.raises(ManifestInvalid, match=f"{file} is used but not listed"):
        parse(fields)


@pytest.mark.parametrize(("task", "part"), [(TEXTS, "tokenize"), (WRITER, "write")])
def test_a_tokenizer_outside_the_bundle_is_refused(repository: Repository, task: str, part: str) -> None:
    fields = fields_of(repository, task)
    fields[part]["file"] = "../tokenizer.json"
    with pytest.raises(PathEscapes, match="not a plain path"):
        parse(fields)
