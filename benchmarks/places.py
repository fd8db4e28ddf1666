"""Where a workload's models are laid out, for Lantern and for everyone else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import ROOT, SCRATCH, Mix, Workload
from models.bundle import Bundle
from models.repository import Repository


@dataclass(frozen=True)
class Place:
    """Where a workload's models are.

    Attributes:
        models_dir: The repository, for Lantern.
        folder: The very same model in plain files, for everyone else; of a mix, a folder a model.
        parts: Of a mix, where each model is by itself.
    """

    models_dir: Path
    folder: Path
    parts: Sequence["Place"] = ()

    @property
    def each(self) -> Sequence["Place"]:
        """A place for each model."""
        return self.parts or (self,)


def lay_out(workload: Workload | Mix, scratch: Path, *, optimize: bool = False) -> Place:
    """Publish a workload's models and lay out the very same files for the peers.

    Args:
        workload: Whose.
        scratch: Where; what is there already is not made again.
        optimize: Make faster forms of the models too, which may take minutes.
    """
    if isinstance(workload, Mix):
        return _lay_out_together(workload, scratch, optimize=optimize)
    place = Place(scratch / "models" / workload.model, scratch / "plain" / workload.model)
    if not place.models_dir.exists():
        workload.prepare(scratch)
        _train(workload.publish, place, scratch, check=True)
        if optimize and workload.optimize:
            # On some machines no other form is faster; the model then serves as it is.
            _train(("optimize", workload.model, *workload.optimize), place, scratch, check=False)
    bundle = Repository(place.models_dir).open(workload.model)
    place.folder.mkdir(parents=True, exist_ok=True)
    _write_plainly(bundle, place.folder)
    return place


def _lay_out_together(mix: Mix, scratch: Path, *, optimize: bool) -> Place:
    parts = [lay_out(part, scratch, optimize=optimize) for part in mix.parts]
    place = Place(scratch / "models" / mix.name, scratch / "plain" / mix.name, parts)
    for workload, part in zip(mix.parts, parts, strict=True):
        shutil.copytree(part.models_dir / workload.model, place.models_dir / workload.model)
        shutil.copytree(part.folder, place.folder / workload.model)
    return place


def _train(words: Sequence[str], place: Place, scratch: Path, *, check: bool) -> None:
    filled = [word.replace(SCRATCH, str(scratch)) for word in words]
    command = [sys.executable, "-m", "training", *filled, "--models-dir", str(place.models_dir)]
    subprocess.run(command, check=check, cwd=ROOT, stdout=sys.stderr)


def _write_plainly(bundle: Bundle, folder: Path) -> None:
    manifest = bundle.manifest
    (folder / "model.ts.pt").write_bytes(bundle.read(manifest.torchscript.file))
    (folder / "labels.json").write_text(json.dumps(manifest.labels))
    if manifest.decode is not None:
        task = {"kind": "image", "size": manifest.decode.size, "shorter_side": manifest.decode.shorter_side}
    else:
        assert manifest.tokenize is not None, "the manifest's own check: it has one of the two"  # noqa: S101
        (folder / "tokenizer.json").write_bytes(bundle.read(manifest.tokenize.file))
        task = {"kind": "text", "max_tokens": manifest.tokenize.max_tokens}
    (folder / "task.json").write_text(json.dumps(task))
