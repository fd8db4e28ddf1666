import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.errors import BundleError, FileCorrupt, FileMissing, FileUnexpected, ManifestInvalid, PathEscapes
from models.repository import Repository
from tests.bundles import publish
from tests.harms import replace_with_directory, replace_with_link, replace_with_pipe, truncate


@pytest.fixture
def bundle(repository: Repository) -> Bundle:
    return publish(repository, "shades")


def test_a_whole_bundle_opens(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.directory, bundle.manifest_sha256)
    assert opened == bundle
    assert opened.read("golden/0.png").startswith(b"\x89PNG")


def test_a_flipped_byte_anywhere_is_refused_by_name(bundle: Bundle) -> None:
    for path in bundle.manifest.files:
        file = bundle.directory / path
        content = file.read_bytes()
        for position in {*range(0, len(content), 61), len(content) - 1}:
            flipped = bytearray(content)
            flipped[position] ^= 1 << position % 8
            file.write_bytes(flipped)
            with pytest.raises(FileCorrupt, match=path):
                Bundle.open(bundle.directory)
        with pytest.raises(FileCorrupt, match=path):
            bundle.read(path)
        file.write_bytes(content)
    Bundle.open(bundle.directory)


def test_a_flipped_byte_anywhere_in_the_manifest_is_refused(bundle: Bundle) -> None:
    file = bundle.directory / "manifest.json"
    content = file.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ManifestInvalid):
            Bundle.open(bundle.directory, bundle.manifest_sha256)


def test_a_changed_manifest_is_not_the_published_one(bundle: Bundle) -> None:
    file = bundle.directory / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b"1.0", b"0.9", 1))
    with pytest.raises(ManifestInvalid, match="not the one that was published"):
        Bundle.open(bundle.directory, bundle.manifest_sha256)


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (Path.unlink, FileMissing),
        (truncate, FileCorrupt),
        (grow, FileCorrupt),
        (replace_with_link, PathEscapes),
        (replace_with_directory, FileMissing),
        (replace_with_pipe, PathEscapes),
    ],
)
def test_a_harmed_file_is_refused_by_name(
    bundle: Bundle, harm: Callable[[Path], None], error: type[BundleError]
) -> None:
    harm(bundle.directory / "model.ts.pt")
    with pytest.raises(error, match=r"model\.ts\.pt"):
        Bundle.open(bundle.directory)


@pytest.mark.parametrize("extra", ["model2.pt", "golden/extra.png", ".hidden", "deep/er/file"])
def test_an_extra_file_is_refused_by_name(bundle: Bundle, extra: str) -> None:
    (bundle.directory / extra).parent.mkdir(parents=True, exist_ok=True)
    (bundle.directory / extra).write_bytes(b"x")
    with pytest.raises(FileUnexpected, match=extra):
        Bundle.open(bundle.directory)


def test_a_linked_directory_is_refused(bundle: Bundle) -> None:
    (bundle.directory / "golden").rename(bundle.directory.parent / "golden")
    (bundle.directory / "golden").symlink_to(bundle.directory.parent / "golden")
    with pytest.raises(PathEscapes, match="golden"):
        Bundle.open(bundle.directory)


def test_a_half_written_bundle_has_no_manifest_and_is_refused(bundle: Bundle) -> None:
    (bundle.directory / "manifest.json").unlink()
    with pytest.raises(ManifestInvalid, match=r"manifest\.json"):
        Bundle.open(bundle.directory)


def test_a_linked_manifest_is_refused(bundle: Bundle) -> None:
    replace_with_link(bundle.directory / "manifest.json")
    with pytest.raises(PathEscapes, match=r"manifest\.json"):
        Bundle.open(bundle.directory)


def test_a_manifest_that_lists_a_path_outside_is_refused(bundle: Bundle) -> None:
    file = bundle.directory / "manifest.json"
    fields = json.loads(file.read_bytes())
    fields["files"]["../../secret"] = fields["files"]["model.ts.pt"]
    file.write_text(json.dumps(fields))
    with pytest.raises(PathEscapes, match="secret"):
        Bundle.open(bundle.directory)


def test_torch_never_sees_bytes_that_were_not_verified(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from app.inference import load
    from training import fresh_check

    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch saw unverified bytes"))
    truncate(bundle.directory / "model.ts.pt")
    # Opened before it was harmed: what is loaded is hashed again.
    with pytest.raises(FileCorrupt):
        load(bundle, torch.device("cpu"), 1)
    with pytest.raises(FileCorrupt):
        fresh_check.main(bundle.directory)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [replace_with_directory, replace_with_pipe, Path.unlink])
def test_a_manifest_that_is_no_plain_file_is_refused(bundle: Bundle, harm: Callable[[Path], None]) -> None:
    harm(bundle.directory / "manifest.json")
    with pytest.raises(ManifestInvalid, match=r"manifest\.json"):
        Bundle.open(bundle.directory)


def test_a_manifest_of_any_size_is_not_read(bundle: Bundle) -> None:
    with (bundle.directory / "manifest.json").open("r+b") as file:
        file.truncate(1024**3)
    with pytest.raises(ManifestInvalid, match="over"):
        Bundle.open(bundle.directory)


def test_only_listed_files_can_be_read(bundle: Bundle) -> None:
    with pytest.raises(FileMissing, match="not in the manifest"):
        bundle.read("../CURRENT")


def test_a_file_that_goes_after_opening_is_reported(bundle: Bundle) -> None:
    (bundle.directory / "model.ts.pt").unlink()
    with pytest.raises(FileMissing, match=r"model\.ts\.pt"):
        bundle.read("model.ts.pt")


@pytest.mark.parametrize(("call", "code"), [("stat", errno.EACCES), ("open", errno.EIO)])
def test_a_file_that_cannot_be_read_is_refused_by_name(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    ask = getattr(Path, call)

    def refuse(file: Path, *given: object, **named: object) -> object:
        if file.name == "model.ts.pt":
            raise OSError(code, os.strerror(code), str(file))
        return ask(file, *given, **named)

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(FileMissing, match=rf"model\.ts\.pt cannot be read: {os.strerror(code)}"):
        Bundle.open(bundle.directory)
