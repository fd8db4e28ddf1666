"""What is trusted, and what is refused, where a version must be signed."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from models.bundle import Bundle, describe_all
from models.errors import (
    BundleError,
    CurrentInvalid,
    FileCorrupt,
    FileUnexpected,
    KeyFileInvalid,
    ManifestInvalid,
    PathEscapes,
    SignatureInvalid,
    SignatureMissing,
)
from models.manifest import Manifest
from models.public_keys import PublicKeys
from models.repository import Repository
from models.signing_key import SigningKey, public_file
from tests.bundles import Always, publish, publish_signed
from tests.harms import replace_with_directory, replace_with_link, replace_with_pipe, truncate

KEY, OTHER = SigningKey.make(), SigningKey.make()
OPENSSL = shutil.which("openssl")


@pytest.fixture
def bundle(repository: Repository) -> Bundle:
    return publish_signed(repository, "shades", KEY)


@pytest.fixture
def trusting(repository: Repository) -> Repository:
    """The same repository, of which only what the key signed is taken."""
    return Repository(repository.root, trusted=lambda: KEY.public)


def test_what_a_trusted_key_signed_opens(bundle: Bundle, trusting: Repository) -> None:
    assert Bundle.open(bundle.directory, trusted=KEY.public) == bundle
    assert trusting.open("shades") == bundle
    assert trusting.is_signed("shades", bundle.manifest.version)


def test_where_no_key_is_trusted_signed_and_unsigned_versions_open(repository: Repository) -> None:
    for signed in (publish_signed(repository, "shades", OTHER), publish(repository, "shades")):
        assert Bundle.open(signed.directory) == signed
    (signed.directory / "manifest.sig").write_bytes(b"no signature at all")
    assert repository.open("shades") == signed


def test_an_unsigned_version_is_refused(shades: Repository) -> None:
    trusting = Repository(shades.root, trusted=lambda: KEY.public)
    with pytest.raises(SignatureMissing, match=r"manifest\.sig is not there.* python -m training sign signs"):
        trusting.open("shades")
    assert not trusting.is_signed("shades", shades.current("shades").version)


def test_several_keys_may_be_trusted_and_each_is_taken_away_by_itself(bundle: Bundle) -> None:
    both = PublicKeys((*OTHER.public.keys, *KEY.public.keys))
    assert Bundle.open(bundle.directory, trusted=both) == bundle
    with pytest.raises(SignatureInvalid, match="is no trusted key's signature"):
        Bundle.open(bundle.directory, trusted=OTHER.public)


def test_a_flipped_bit_anywhere_in_the_signature_or_the_manifest_is_refused(bundle: Bundle) -> None:
    for name, step in (("manifest.sig", 1), ("manifest.json", 7)):
        file = bundle.directory / name
        content = file.read_bytes()
        for position in range(0, len(content), step):
            flipped = bytearray(content)
            flipped[position] ^= 1 << position % 8
            file.write_bytes(flipped)
            with pytest.raises(SignatureInvalid):
                Bundle.open(bundle.directory, trusted=KEY.public)
        file.write_bytes(content)
    Bundle.open(bundle.directory, trusted=KEY.public)


@pytest.mark.parametrize("text", [b"", b"no JSON", b"[" * 100_000, b'{"schema_version": 99}'])
def test_nothing_is_parsed_that_was_not_signed(bundle: Bundle, text: bytes) -> None:
    (bundle.directory / "manifest.json").write_bytes(text)
    with pytest.raises(SignatureInvalid):
        Bundle.open(bundle.directory, trusted=KEY.public)
    # Signed, it is parsed, and refused for what it says.
    (bundle.directory / "manifest.sig").write_bytes(KEY.sign(text))
    with pytest.raises(BundleError) as refused:
        Bundle.open(bundle.directory, trusted=KEY.public)
    assert refused.type is not SignatureInvalid


def test_a_model_that_was_exchanged_is_refused_whoever_wrote_the_manifest(
    repository: Repository, bundle: Bundle, trusting: Repository
) -> None:
    wanted = publish(repository, "other", Always(0))
    shutil.copy(wanted.directory / "model.ts.pt", bundle.directory / "model.ts.pt")
    with pytest.raises(FileCorrupt, match=r"model\.ts\.pt"):
        trusting.open("shades")
    # Who can write the directory can make everything in it fit but the signature.
    manifest = bundle.manifest.model_copy(update={"files": describe_all(bundle.directory)})
    (bundle.directory / "manifest.json").write_bytes(manifest.to_json())
    forged = Bundle.open(bundle.directory)
    (repository.root / "shades/CURRENT").write_text(f"{manifest.version} {forged.manifest_sha256}\n")
    assert repository.open("shades") == forged
    with pytest.raises(SignatureInvalid):
        trusting.open("shades")
    (bundle.directory / "manifest.sig").write_bytes(OTHER.sign(manifest.to_json()))
    with pytest.raises(SignatureInvalid):
        trusting.open("shades")


def test_the_signature_of_another_version_is_refused(
    repository: Repository, bundle: Bundle, trusting: Repository
) -> None:
    later = publish_signed(repository, "shades", KEY)
    shutil.copy(bundle.directory / "manifest.sig", later.directory / "manifest.sig")
    with pytest.raises(SignatureInvalid):
        trusting.open("shades")


@pytest.mark.parametrize(("name", "version"), [("trusted", None), ("shades", "20991231.1")])
def test_a_signed_version_under_another_name_or_number_is_refused(
    repository: Repository, bundle: Bundle, trusting: Repository, name: str, version: str | None
) -> None:
    there = repository.root / name / (version or bundle.manifest.version)
    shutil.copytree(bundle.directory, there)
    (repository.root / name / "CURRENT").write_text(f"{there.name} {bundle.manifest_sha256}\n")
    with pytest.raises(CurrentInvalid, match=f"says it is shades/{bundle.manifest.version}"):
        trusting.open(name)


def grow(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(1024**3)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (Path.unlink, SignatureMissing),
        (truncate, SignatureInvalid),
        (grow, SignatureInvalid),
        (replace_with_link, PathEscapes),
        (replace_with_directory, SignatureInvalid),
        (replace_with_pipe, SignatureInvalid),
    ],
)
def test_what_is_no_plain_file_of_64_bytes_is_refused_by_name(
    bundle: Bundle, harm: Callable[[Path], None], error: type[BundleError]
) -> None:
    harm(bundle.directory / "manifest.sig")
    with pytest.raises(error, match=r"manifest\.sig"):
        Bundle.open(bundle.directory, trusted=KEY.public)


@pytest.mark.parametrize("extra", ["golden/manifest.sig", "manifest.sig2", ".manifest.sig.tmp"])
def test_no_other_file_may_be_there_that_the_manifest_does_not_list(bundle: Bundle, extra: str) -> None:
    (bundle.directory / extra).write_bytes(KEY.sign(b""))
    with pytest.raises(FileUnexpected, match=extra):
        Bundle.open(bundle.directory, trusted=KEY.public)


def test_a_manifest_cannot_list_its_own_signature(bundle: Bundle) -> None:
    fields = json.loads(bundle.manifest.to_json())
    fields["files"]["manifest.sig"] = fields["files"]["model.ts.pt"]
    with pytest.raises(ManifestInvalid, match=r"manifest\.sig is there, .* nor its signature"):
        Manifest.parse(json.dumps(fields).encode())


def by_the_library(directory: Path, public: Path) -> bool:
    key = load_pem_public_key(public.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify((directory / "manifest.sig").read_bytes(), (directory / "manifest.json").read_bytes())
    return True


def by_openssl(directory: Path, public: Path) -> bool:
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    files = ["-in", str(directory / "manifest.json"), "-sigfile", str(directory / "manifest.sig")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("verified", [by_the_library, *([by_openssl] if OPENSSL else [])])
def test_others_verify_the_signature_too(
    tmp_path: Path, repository: Repository, verified: Callable[[Path, Path], bool]
) -> None:
    key = SigningKey.make()
    key.write(tmp_path / "key")
    assert verified(publish_signed(repository, "shades", key).directory, public_file(tmp_path / "key"))


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl; the library's own keys are tested everywhere")
def test_a_key_of_openssl_signs_and_is_trusted(tmp_path: Path, bundle: Bundle, repository: Repository) -> None:
    private, public = str(tmp_path / "key"), str(tmp_path / "key.pub")
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", private],
        ["pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *command], check=True)
    (tmp_path / "key").chmod(0o600)
    repository.sign("shades", SigningKey.read(Path(private)))
    trusted = PublicKeys.read(Path(public))
    assert Bundle.open(bundle.directory, trusted=trusted) == bundle
    assert by_openssl(bundle.directory, Path(public))
    command = ["pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", str(bundle.directory / "manifest.json")]
    signature = subprocess.run(["openssl", *command], capture_output=True, check=True).stdout
    (bundle.directory / "manifest.sig").write_bytes(signature)
    assert Bundle.open(bundle.directory, trusted=trusted) == bundle


def test_nothing_unsigned_becomes_current_where_signatures_are_wanted(
    repository: Repository, bundle: Bundle, trusting: Repository
) -> None:
    signed = publish_signed(repository, "shades", KEY)
    unsigned = publish(repository, "shades").manifest.version
    repository.rollback("shades", signed.manifest.version)
    before = repository.current("shades")
    with pytest.raises(SignatureMissing):
        trusting.rollback("shades", unsigned)
    with pytest.raises(SignatureMissing):
        trusting.set_candidate("shades", unsigned, 0.5)
    with pytest.raises(SignatureMissing):
        publish(trusting, "shades")
    assert trusting.current("shades") == before
    trusting.set_candidate("shades", bundle.manifest.version, 0.5)
    assert trusting.promote("shades").version == bundle.manifest.version
    assert trusting.rollback("shades", signed.manifest.version).version == signed.manifest.version


def test_keys_that_cannot_be_read_any_more_are_no_reason_to_trust(repository: Repository, bundle: Bundle) -> None:
    def gone() -> PublicKeys:
        raise KeyFileInvalid("the file of keys is gone")

    trusting = Repository(repository.root, trusted=gone)
    with pytest.raises(KeyFileInvalid):
        trusting.open("shades")
    assert not trusting.is_signed("shades", bundle.manifest.version)
