"""python -m training optimize: a published model, published anew with other forms of it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from models.accuracy import AccuracyLimits
from models.bundle import Bundle, describe_all
from models.manifest import Manifest
from models.openvino_graph import import_openvino
from models.preparation import preparation_of
from models.repository import Repository
from models.signing_key import SigningKey, signing_key_of
from models.staging import Staging
from training.commands import OptimizeOptions
from training.errors import GateFailed
from training.fresh_check import check_in_fresh_process
from training.optimizing.backends import Exporting, Optimized, optimized
from training.optimizing.source import sample_of
from training.progress import Progress
from training.publish import write_optimized


def optimize(options: OptimizeOptions, progress: Progress) -> Bundle:
    """Publish the current version of a model anew, with those other forms that are accurate enough and faster.

    Raises:
        GateFailed: There are none.
        TrainingError, ModelsError, OSError: The data or the libraries are missing, or nothing can be published.
    """
    import_openvino()  # What is missing is better known before the data are read.
    key = signing_key_of(options.signing_key)
    # A version that somebody else put there must not get this signature by being published anew.
    repository = Repository(options.models_dir, trusted=(lambda: key.public) if key else None)
    bundle = repository.open(options.name)
    repository.check_writable(options.name)
    manifest = bundle.manifest
    sample = sample_of(bundle, options.data, progress)
    limits = AccuracyLimits(max_metric_loss=options.max_metric_loss, min_top1_agreement=options.min_agreement)
    exporting = Exporting(
        bundle.read(manifest.torchscript.file),
        manifest.inputs[0],
        preparation_of(manifest, bundle.read),
        [bundle.read(golden.file) for golden in manifest.golden],
        options.allowed,
    )
    found = optimized(exporting, sample, limits, progress)
    if not found:
        raise GateFailed("none of the other forms is accurate enough and faster; the model serves as it is")
    with repository.staging(options.name) as staging:
        # Published meanwhile, a newer model would be rolled back by the older one's next version.
        if repository.current(options.name).manifest_sha256 != bundle.manifest_sha256:
            raise GateFailed(f"another version of {options.name} was published meanwhile; optimize that")
        _write(staging, bundle, found, limits, key)
        check_in_fresh_process(staging.directory, options.allowed)
        return repository.publish(options.name, staging)


def _write(
    staging: Staging,
    bundle: Bundle,
    found: Sequence[Optimized],
    limits: AccuracyLimits,
    key: SigningKey | None,
) -> None:
    manifest = bundle.manifest
    before = {path for backend in manifest.backends if not backend.is_reference for path in backend.files}
    for path in set(manifest.files) - before:
        file = staging.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundle.read(path))
    write_optimized(staging.directory, found)
    changes = {
        "version": staging.version,
        "created_at": datetime.now(UTC),
        "files": describe_all(staging.directory),
        "backends": (*(each.backend for each in found), manifest.torchscript),
        "accuracy_limits": limits,
    }
    staging.write_manifest(Manifest(**dict(manifest) | changes), key)
