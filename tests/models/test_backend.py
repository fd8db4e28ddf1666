"""What a manifest may say of the forms of its model."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from models.accuracy import AccuracyLimits
from models.errors import ManifestInvalid
from models.manifest import Manifest
from models.repository import Repository
from tests.bundles import openvino_backend, publish, publish_with_openvino

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def fields(repository: Repository) -> dict[str, Any]:
    manifest = publish_with_openvino(repository, "shades", openvino_backend(id="other", precision="int8")).manifest
    loaded: dict[str, Any] = json.loads(manifest.to_json())
    return loaded


def test_a_bundle_of_before_there_were_other_forms_is_read(repository: Repository) -> None:
    fields = json.loads(publish(repository, "shades").manifest.to_json())
    del fields["accuracy_limits"]
    for added in ("weights", "accuracy", "items_per_s"):
        del fields["backends"][0][added]
    manifest = Manifest.parse(json.dumps(fields).encode())
    assert manifest.torchscript.file == "model.ts.pt"
    assert manifest.accuracy_limits == AccuracyLimits()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda each: each.update(accuracy=None), "accuracy: is wanted"),
        (lambda each: each.update(weights=None), "weights: a second file goes with openvino"),
        (lambda each: each.update(format="torchscript"), "weights: a second file goes with openvino"),
        (lambda each: each.update(precision="fp16"), "precision"),
        (lambda each: each.update(format="onnx"), "format"),
        (lambda each: each.update(id="torchscript-fp32"), "two have the same id"),
        (lambda each: each.update(weights="../model.bin"), "not a plain path"),
        (lambda each: each.update(weights="model.openvino.xml"), "openvino has two files"),
        (lambda each: each.update(devices=["cpu", "cuda"]), "runs on cpu only"),
        (lambda each: each["accuracy"].update(metric=0.1), "metric_loss goes with metric"),
        (lambda each: each.update(weights="missing.bin"), "missing.bin is used but not listed"),
        (lambda each: each["accuracy"].update(top1_agreement=0.979), r"97.90% of 50 examples; 98.00% is wanted"),
        (lambda each: each["accuracy"].update(metric=0.9, metric_loss=0.0051), "accuracy falls by 0.51 points"),
    ],
)
def test_a_form_that_is_off_is_refused_by_name(fields: dict[str, Any], change: Change, reason: str) -> None:
    change(fields["backends"][0])
    with pytest.raises(Exception, match=reason) as refused:
        Manifest.parse(json.dumps(fields).encode())
    assert refused.type.__module__ == ManifestInvalid.__module__


@pytest.mark.parametrize("kept", [slice(0, 1), slice(0, 0)])
def test_torchscript_must_be_there(fields: dict[str, Any], kept: slice) -> None:
    fields["backends"] = fields["backends"][kept]
    with pytest.raises(ManifestInvalid, match="backends"):
        Manifest.parse(json.dumps(fields).encode())


def test_a_bundle_may_demand_more_or_less(fields: dict[str, Any]) -> None:
    fields["accuracy_limits"] = {"max_metric_loss": 0.0, "min_top1_agreement": 1.0}
    Manifest.parse(json.dumps(fields).encode())
    fields["backends"][0]["accuracy"].update(top1_agreement=0.999)
    with pytest.raises(ManifestInvalid, match=r"100\.00% is wanted"):
        Manifest.parse(json.dumps(fields).encode())
    fields["accuracy_limits"]["min_top1_agreement"] = 0.9
    Manifest.parse(json.dumps(fields).encode())
