"""Signing what is published already: of the very bytes that were verified, and at once or not at all."""

import subprocess
import sys

import pytest

from models.bundle import Bundle
from models.errors import FileCorrupt, ManifestInvalid, ModelNotFound, VersionNotFound
from models.repository import Repository
from models.signing_key import SigningKey
from tests.bundles import publish, publish_signed
from tests.servers import ROOT

KEY, OTHER = SigningKey.make(), SigningKey.make()


def test_the_current_version_is_signed_or_the_one_that_is_named(shades: Repository) -> None:
    first, second = shades.open("shades"), publish(shades, "shades")
    assert shades.sign("shades", KEY) == second
    assert Bundle.open(second.directory, trusted=KEY.public) == second
    assert not (first.directory / "manifest.sig").exists()
    assert shades.sign("shades", KEY, first.manifest.version) == first
    assert Bundle.open(first.directory, trusted=KEY.public) == first


def test_another_key_signs_in_the_place_of_the_first(repository: Repository) -> None:
    bundle = publish_signed(repository, "shades", OTHER)
    repository.sign("shades", KEY)
    assert Bundle.open(bundle.directory, trusted=KEY.public) == bundle


def test_a_version_that_is_not_whole_is_not_signed(shades: Repository) -> None:
    directory = shades.open("shades").directory
    (directory / "model.ts.pt").write_bytes(b"another model")
    with pytest.raises(FileCorrupt):
        shades.sign("shades", KEY)
    assert not (directory / "manifest.sig").exists()


def test_a_manifest_that_is_not_the_published_one_is_not_signed(shades: Repository) -> None:
    bundle = shades.open("shades")
    changed = bundle.manifest.model_copy(update={"metrics": {"test_accuracy": 0.5}})
    (bundle.directory / "manifest.json").write_bytes(changed.to_json())
    with pytest.raises(ManifestInvalid, match="not the one that was published"):
        shades.sign("shades", KEY)
    assert not (bundle.directory / "manifest.sig").exists()


def test_what_is_not_there_cannot_be_signed(shades: Repository) -> None:
    with pytest.raises(VersionNotFound):
        shades.sign("shades", KEY, "20000101.1")
    with pytest.raises(ModelNotFound):
        shades.sign("other", KEY)
    assert not (shades.root / "other").exists()


def test_a_version_can_be_opened_at_every_moment_of_its_signing(shades: Repository) -> None:
    bundle = shades.open("shades")
    opened: list[Bundle] = []

    class Looking(SigningKey):
        def sign(self, content: bytes) -> bytes:
            opened.append(shades.open("shades"))
            return super().sign(content)

    for _ in range(2):
        shades.sign("shades", Looking.make())
    assert opened == [bundle, bundle]


# Kills itself when all is written but the name: what stands there then is all that a signer leaves behind.
KILLED = """
import os, signal, sys
from pathlib import Path
from models.repository import Repository
from models.signing_key import SigningKey

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Repository(Path(sys.argv[1])).sign("shades", SigningKey.make())
"""


def test_a_signer_that_is_killed_leaves_the_version_as_it_was_and_the_next_publisher_sweeps(
    repository: Repository,
) -> None:
    bundle = publish_signed(repository, "shades", KEY)
    done = subprocess.run([sys.executable, "-c", KILLED, str(repository.root)], cwd=ROOT, check=False)
    assert done.returncode == -9
    left = repository.root / "shades/.manifest.sig.tmp"
    assert left.exists()
    assert Repository(repository.root, trusted=lambda: KEY.public).open("shades") == bundle
    publish(repository, "shades")
    assert not left.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("models.rollback", "shades", "FIRST"),
        ("models.rollout", "shades", "FIRST", "--share", "0.5"),
    ],
)
def test_the_commands_roll_signed_versions_back_and_out(repository: Repository, command: tuple[str, ...]) -> None:
    first = publish_signed(repository, "shades", KEY)
    publish_signed(repository, "shades", KEY)
    arguments = [first.manifest.version if each == "FIRST" else each for each in command]
    line = [sys.executable, "-m", *arguments, "--models-dir", str(repository.root)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    candidate = repository.candidate("shades")
    found = candidate.version if candidate else repository.current("shades").version
    assert found == first.manifest.version
