import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ManifestInvalid, PathEscapes, SchemaVersionUnknown
from models.manifest import Manifest
from models.repository import Repository
from tests.bundles import publish


@pytest.fixture
def fields(repository: Repository) -> dict[str, Any]:
    manifest = publish(repository, "shades").manifest
    loaded: dict[str, Any] = json.loads(manifest.to_json())
    return loaded


def parse(fields: dict[str, Any]) -> Manifest:
    return Manifest.parse(json.dumps(fields).encode())


def test_what_is_written_reads_back_equal(repository: Repository) -> None:
    manifest = publish(repository, "shades").manifest
    assert Manifest.parse(manifest.to_json()) == manifest


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_schema_version_is_refused_by_name(fields: dict[str, Any], version: object) -> None:
    with pytest.raises(SchemaVersionUnknown, match="schema_version"):
        parse(fields | {"schema_version": version})


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="JSON"):
        Manifest.parse(text)


@pytest.mark.parametrize("field", ["name", "version", "labels", "backends", "golden", "decode", "files", "limits"])
def test_a_missing_field_is_named(fields: dict[str, Any], field: str) -> None:
    del fields[field]
    with pytest.raises(ManifestInvalid, match=rf"{field}: (Field required|.*wanted)"):
        parse(fields)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"labels": ["a", "a", "b"]}, "labels: two are the same"),
        ({"labels": ["only"]}, "labels"),
        ({"name": "Not A Name"}, "name"),
        ({"version": "latest"}, "version"),
        ({"task": "divination"}, "task"),
        ({"metrics": {"test_accuracy": "high"}}, "metrics"),
        ({"created_at": "2026-11-23T00:00:00"}, "created_at"),
        ({"outputs": []}, "outputs"),
        ({"inputs": []}, "inputs"),
    ],
)
def test_a_field_that_is_off_is_named(fields: dict[str, Any], change: dict[str, Any], named: str) -> None:
    with pytest.raises(ManifestInvalid, match=named):
        parse(fields | change)


def test_a_used_file_must_be_listed(fields: dict[str, Any]) -> None:
    del fields["files"]["model.ts.pt"]
    with pytest.raises(ManifestInvalid, match=r"model\.ts\.pt is used but not listed"):
        parse(fields)


def test_a_manifest_cannot_list_itself(fields: dict[str, Any]) -> None:
    fields["files"]["manifest.json"] = fields["files"]["model.ts.pt"]
    with pytest.raises(ManifestInvalid, match="cannot list itself"):
        parse(fields)


def test_golden_scores_must_match_the_labels(fields: dict[str, Any]) -> None:
    fields["golden"][0]["scores"].pop()
    with pytest.raises(ManifestInvalid, match="golden"):
        parse(fields)


@pytest.mark.parametrize("shorter_side", [None, 4])
def test_a_crop_needs_room(fields: dict[str, Any], shorter_side: int | None) -> None:
    fields["decode"] |= {"fit": "crop", "shorter_side": shorter_side}
    with pytest.raises(ManifestInvalid, match="shorter_side"):
        parse(fields)


ESCAPES = ["/etc/passwd", "../up", "a/../../up", "a\\b", "a//b", "./a", "a/", "", ".", "a\0b", "..", "a/./b"]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leaves_the_bundle_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    fields["files"][path] = fields["files"]["model.ts.pt"]
    with pytest.raises(PathEscapes, match="not a plain path"):
        parse(fields)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_a_named_refusal(text: bytes) -> None:
    with pytest.raises((ManifestInvalid, SchemaVersionUnknown)):
        Manifest.parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Manifest.model_fields]), json_values))
def test_no_json_does_worse_than_a_named_refusal(fields: dict[str, Any]) -> None:
    with pytest.raises((ManifestInvalid, PathEscapes, SchemaVersionUnknown)):
        parse(fields | {"schema_version": 1})
