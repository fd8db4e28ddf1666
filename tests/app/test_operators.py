"""A model that could do more than compute never goes live, and harms none that is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.settings import SettingsError, read_settings
from models.repository import Repository
from tests.bundles import LABELS, Shades, decoding, manifest, publish, write_golden
from tests.images import png
from tests.servers import Running, process, until
from training.export import Exported, script

Serve = Callable[..., Running]
PNG = {"Content-Type": "image/png"}
SAVE = frozenset({"aten::save"})


class Recording(nn.Module):
    """Right in what it answers, and writes what it was asked into a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.inner = Shades()
        self.path = str(path)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        torch.save(images_NCHW, self.path)
        scores_NK: Tensor = self.inner(images_NCHW)
        return scores_NK


def publish_recording(repository: Repository, path: Path) -> str:
    """Publish it as somebody would who can write the directory, past all that training checks."""
    content = script(Recording(path))
    with repository.staging("shades") as staging:
        (staging.directory / "model.ts.pt").write_bytes(content)
        golden = write_golden(staging.directory, Exported(content, SAVE), decoding())
        staging.write_manifest(manifest(staging, "shades", LABELS, golden))
        return repository.publish("shades", staging).manifest.version


def test_it_is_refused_with_its_operator_and_the_version_before_serves_on(
    shades: Repository, serve: Serve, tmp_path: Path
) -> None:
    running = serve().until_ready()
    good = shades.current("shades").version
    version = publish_recording(shades, tmp_path / "seen")
    (tmp_path / "seen").unlink()
    until(lambda: "shades" in running.service.registry.refusals)
    told = running.client.get("/models/shades").json()
    assert (told["version"], told["refused"]["version"]) == (good, version)
    assert told["refused"]["error"] == "OperatorsNotAllowed"
    assert "aten::save" in told["refused"]["detail"]
    assert "LANTERN_ALLOW_OPERATORS=aten::save" in told["refused"]["detail"]
    answer = running.client.post("/predict", content=png(0), headers=PNG)
    assert (answer.status_code, answer.json()["version"]) == (200, good)
    assert not (tmp_path / "seen").exists()
    version = publish(shades, "shades").manifest.version
    running.until_version("shades", version)


def test_who_runs_the_service_may_allow_it(repository: Repository, tmp_path: Path) -> None:
    version = publish_recording(repository, tmp_path / "seen")
    (tmp_path / "seen").unlink()
    with process(repository.root, drain_grace_s=0, allow_operators="prim::fork,aten::save") as service:
        answer = service.until_ready().client.post("/predict", content=png(0), headers=PNG).json()
    assert (answer["version"], answer["predictions"][0]["label"]) == (version, "dark")
    assert (tmp_path / "seen").exists()


@pytest.mark.parametrize("value", ["*", "aten::*", "save"])
def test_no_setting_allows_everything(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LANTERN_ALLOW_OPERATORS", value)
    with pytest.raises(SettingsError, match=r"LANTERN_ALLOW_OPERATORS .* is no operator's name"):
        read_settings([])
