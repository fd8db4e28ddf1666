"""keygen and sign, and what every command that publishes does with the key it is given."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import training.__main__ as command_line
from models.bundle import Bundle
from models.errors import KeyFileInvalid
from models.public_keys import PublicKeys
from models.repository import Repository
from models.signing_key import SigningKey, public_file
from tests.bundles import Shades, publish
from tests.training.small import silent
from training.commands import ImportOptions
from training.config import Options
from training.importing import import_file

KEY = "signing.key"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    SigningKey.make().write(tmp_path / KEY)
    return tmp_path / KEY


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["python -m training", *map(str, arguments)])
    return command_line.main()


def is_signed(directory: Path, key_file: Path) -> bool:
    return Bundle.open(directory, trusted=PublicKeys.read(public_file(key_file))).directory == directory


def test_keygen_makes_a_pair_and_says_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a key"
    assert run(monkeypatch, "keygen", file) == 0
    told = capsys.readouterr().out
    for part in (
        f"--signing-key '{file}'",
        f"sign NAME --key '{file}'",
        f"LANTERN_TRUSTED_KEYS_FILE='{file}.pub'",
    ):
        assert part in told
    private = file.read_bytes()
    assert not any(line in told for line in private.decode().splitlines()[1:-1])
    assert PublicKeys.read(public_file(file)).verify(SigningKey.read(file).sign(b"x"), b"x")
    assert run(monkeypatch, "keygen", file) == 1
    assert capsys.readouterr().err.startswith(f"no key was made: {file} is there already")
    assert file.read_bytes() == private


@pytest.mark.parametrize("named", ["option", "variable"])
def test_sign_signs_the_current_version_or_the_one_that_is_named(
    shades: Repository,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: str,
) -> None:
    first, second = shades.open("shades"), publish(shades, "shades")
    key: tuple[object, ...] = ("--key", key_file)
    if named == "variable":
        monkeypatch.setenv("LANTERN_SIGNING_KEY_FILE", str(key_file))
        key = ()
    assert run(monkeypatch, "--models-dir", shades.root, "sign", "shades", *key) == 0
    version = second.manifest.version
    assert capsys.readouterr().out == f"signed shades/{version} in {second.directory}\n"
    assert is_signed(second.directory, key_file)
    assert not (first.directory / "manifest.sig").exists()
    older = ("--version", first.manifest.version)
    assert run(monkeypatch, "sign", "shades", *older, *key, "--models-dir", shades.root) == 0
    assert is_signed(first.directory, key_file)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ((), 2, "--key: it has to be given; python -m training keygen FILE makes one"),
        (("--key", "nowhere.key"), 1, "nothing was signed: nowhere.key cannot be read: No such file"),
        (("--key", "KEY.pub"), 1, "is a public key; the private one signs"),
        (("--key", "KEY", "--version", "20000101.1"), 1, "nothing was signed: shades has no version '20000101.1'"),
    ],
)
def test_what_cannot_be_signed_is_told_in_a_line(
    shades: Repository,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    complaint: str,
) -> None:
    given = [each.replace("KEY", str(key_file)) for each in arguments]
    assert run(monkeypatch, "sign", "shades", *given, "--models-dir", shades.root) == status
    assert complaint in capsys.readouterr().err
    assert not (shades.open("shades").directory / "manifest.sig").exists()


def test_the_starter_set_is_signed_with_the_key_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Options] = []
    for step in ("_train", "_import"):
        monkeypatch.setattr(command_line, step, lambda options: asked.append(options))
    monkeypatch.setenv("LANTERN_SIGNING_KEY_FILE", "a.key")
    assert run(monkeypatch) == 0
    assert [each.signing_key for each in asked] == [Path("a.key")] * 3


def test_a_comparison_publishes_nothing_and_takes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "compare", "text", "--data", "x.csv", "--signing-key", "a.key")


@pytest.fixture
def foreign(tmp_path: Path) -> dict[str, Any]:
    """How to import somebody else's model, but for the key."""
    torch.jit.save(torch.jit.script(Shades()), tmp_path / "model.pt")
    (tmp_path / "labels.txt").write_text("dark\ngrey\nlight\n")
    return {
        "file": tmp_path / "model.pt",
        "labels": tmp_path / "labels.txt",
        "name": "shades",
        "size": 8,
        "models_dir": tmp_path / "models",
    }


def test_what_is_imported_is_signed_before_it_is_current(
    foreign: dict[str, Any], key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    renamed = Path.rename

    def look(self: Path, target: Path) -> Path:
        seen.append((self / "manifest.sig").exists())
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", look)
    bundle = import_file(ImportOptions(**foreign, signing_key=key_file), silent())
    assert is_signed(bundle.directory, key_file)
    assert "signing_key" not in bundle.manifest.source.config
    beside = import_file(ImportOptions(**foreign, signing_key=key_file, candidate=True), silent())
    assert is_signed(beside.directory, key_file)
    import_file(ImportOptions(**foreign), silent())
    assert seen == [True, True, False]


def test_a_wrong_key_is_told_before_anything_is_imported(
    foreign: dict[str, Any], key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.importing.script", lambda *_: pytest.fail("exported"))
    key_file.chmod(0o644)
    with pytest.raises(KeyFileInvalid, match="chmod 600"):
        import_file(ImportOptions(**foreign, signing_key=key_file), silent())
    assert Repository(foreign["models_dir"]).versions("shades") == []
