import gzip
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.datasets import debian, fashion_mnist
from training.datasets.images import LabelledImages, split
from training.errors import DataUnavailable


@pytest.fixture(scope="module")
def source() -> Path:
    """Where `make data` put the real data set."""
    return fashion_mnist.locate(None)


def test_the_data_set_is_the_published_one(source: Path) -> None:
    dataset = fashion_mnist.load(source, 0.1, seed=0)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (54_000, 6_000, 10_000)
    assert dataset.train.images_NCHW.shape[1:] == (1, 28, 28)
    assert dataset.train.images_NCHW.dtype == torch.uint8
    assert torch.bincount(dataset.test.labels_N).tolist() == [1000] * 10
    # The first test image is the well-known ankle boot.
    assert dataset.labels[int(dataset.test.labels_N[0])] == "Ankle boot"


def test_uncompressed_files_are_taken_too(source: Path, tmp_path: Path) -> None:
    for name in fashion_mnist.SHA256:
        (tmp_path / name).write_bytes(gzip.decompress((source / f"{name}.gz").read_bytes()))
    assert len(fashion_mnist.load(tmp_path, 0.1, 0, limit=100).test) == 100


def copied(source: Path, to: Path) -> Path:
    for name in fashion_mnist.SHA256:
        shutil.copy(source / f"{name}.gz", to)
    return to


def test_a_changed_byte_is_found_out(source: Path, tmp_path: Path) -> None:
    labels = copied(source, tmp_path) / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(content))
    with pytest.raises(DataUnavailable, match=r"t10k-labels.*sha256 differs"):
        fashion_mnist.load(tmp_path, 0.1, 0)


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x" * 1000)[:-9]])
def test_a_damaged_archive_is_found_out(source: Path, tmp_path: Path, content: bytes) -> None:
    (copied(source, tmp_path) / "train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(DataUnavailable, match="train-labels"):
        fashion_mnist.load(tmp_path, 0.1, 0)


def test_a_directory_without_the_files_says_which_it_wants(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"--data .* does not hold train-images-idx3-ubyte"):
        fashion_mnist.locate(tmp_path)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data set on the machine, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "INSTALLED", Path("nowhere/to/be/found"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", unreachable)
    return tmp_path


def test_when_it_is_nowhere_the_error_names_the_ways(nowhere: Path) -> None:
    ways = r"(?s)make data.*apt-get install.*python -m training fashion --data.*unreachable"
    with pytest.raises(DataUnavailable, match=ways):
        fashion_mnist.locate(None)


def test_fetching_without_apt_tries_the_downloader(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataUnavailable, match="unreachable"):
        fashion_mnist.fetch()


def test_fetching_what_is_there_does_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "unpack", lambda *_: pytest.fail("fetched again"))
    assert fashion_mnist.fetch() == source


def test_without_apt_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataUnavailable, match="needs apt-get"):
        debian.unpack("anything", tmp_path)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for apt-get and dpkg-deb; returns the commands that were given."""
    commands: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: object) -> None:
        commands.append(command)
        if "missing" in command:
            raise subprocess.CalledProcessError(
                100, command, stderr="E: first\nE: Unable to locate package missing"
            )
        if "download" in command:
            (cwd / f"{command[-1]}_1.deb").write_bytes(b"")
        if command[0] == "dpkg-deb":
            (Path(command[-1]) / "usr/share").mkdir(parents=True)
            (Path(command[-1]) / "usr/share/new").write_text("whole")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_package_replaces_what_was_unpacked_before(tmp_path: Path, apt: list[list[str]]) -> None:
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "usr/share/old").write_text("cut off")
    debian.unpack("package", tmp_path)
    assert [path.name for path in (tmp_path / "usr/share").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["usr"]
    assert [command[0] for command in apt] == ["apt-get", "apt-get", "dpkg-deb"]


def test_a_package_that_does_not_exist_fails_with_apts_reason(tmp_path: Path, apt: list[list[str]]) -> None:
    with pytest.raises(DataUnavailable, match="Unable to locate package missing"):
        debian.unpack("missing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, apt: list[list[str]]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataUnavailable, match="cannot be unpacked into"):
        debian.unpack("package", tmp_path / "file")


def test_damaged_data_is_fetched_anew(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = copied(source, tmp_path)
    whole = (damaged / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (damaged / "t10k-labels-idx1-ubyte.gz").write_bytes(whole[:-100])
    monkeypatch.setattr(fashion_mnist, "_already_here", lambda: damaged)

    def mend(*_: object) -> None:
        (damaged / "t10k-labels-idx1-ubyte.gz").write_bytes(whole)

    monkeypatch.setattr(debian, "unpack", mend)
    assert fashion_mnist.fetch() == damaged


def test_an_apt_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataUnavailable, match="more than 300 s"):
        debian.unpack("anything", tmp_path)


def images(count: int) -> LabelledImages:
    return LabelledImages(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count))


@given(st.integers(2, 200), st.floats(0.001, 0.999), st.integers(0, 5))
def test_a_split_loses_nothing_and_shares_nothing(count: int, fraction: float, seed: int) -> None:
    larger, held_out = split(images(count), fraction, seed)
    assert len(larger) >= 1
    assert len(held_out) >= 1
    assert sorted([*larger.labels_N.tolist(), *held_out.labels_N.tolist()]) == list(range(count))


def test_a_split_is_the_same_for_the_same_seed() -> None:
    first, again, other = (split(images(100), 0.2, seed)[1].labels_N.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_test_set_is_the_same_whatever_the_seed(source: Path) -> None:
    first, second = (fashion_mnist.load(source, 0.1, seed, limit=200).test.images_NCHW for seed in (0, 1))
    assert torch.equal(first, second)
