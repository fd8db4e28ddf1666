"""Fashion-MNIST: 60,000 and 10,000 grey images of 28 x 28 pixels, ten kinds of clothing.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv:1708.07747; the idx format is MNIST's. Looked for in
`--data`, in `data/` (where `make data` unpacks Debian's package), where that package installs, and last with
torchvision's downloader. The decompressed files' sha256 is checked wherever they come from.
"""

import gzip
import hashlib
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from training.datasets import debian
from training.datasets.images import ImageDataset, LabelledImages, split
from training.downloads import socket_timeout
from training.errors import DataUnavailable

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIZE = (28, 28)
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("usr/share/datasets/fashion-mnist")
DOWNLOADS = Path("data")
DOWNLOAD_TIMEOUT_S = 30.0

HOW_TO_GET_IT = f"""Fashion-MNIST was not found. Any of these brings it:
  make data                                    unpacks Debian's {DEBIAN_PACKAGE} into {DOWNLOADS}/, without root
  apt-get install {DEBIAN_PACKAGE}        the same, for the whole machine
  python -m training fashion --data DIRECTORY  with {", ".join(SHA256)}, gzipped or not"""


def load(data: Path | None, validation_fraction: float, seed: int, limit: int | None = None) -> ImageDataset:
    """Find, verify and split the data set.

    Args:
        data: Directory to read it from; None looks in the known places.
        validation_fraction: Share of the training images held out for choosing.
        seed: Of the split.
        limit: Use only the first so many training and test images; the published files are in random order.

    Raises:
        DataUnavailable: It is nowhere, or its bytes are not the canonical ones.
    """
    files = read_all(locate(data))
    train_validation = _first(_parse(files, "train"), limit)
    train, validation = split(train_validation, validation_fraction, seed)
    digest = hashlib.sha256("".join(SHA256.values()).encode()).hexdigest()
    return ImageDataset(LABELS, train, validation, _first(_parse(files, "t10k"), limit), digest)


def locate(data: Path | None) -> Path:
    """Return the directory that holds the four files.

    Raises:
        DataUnavailable: No known place holds them, and they cannot be downloaded.
    """
    if data is not None:
        if not _holds_all(data):
            raise DataUnavailable(f"--data {data} does not hold {', '.join(SHA256)}, gzipped or not")
        return data
    return _already_here() or _download()


def fetch() -> Path:
    """Bring the data set here if it is not yet: as Debian's package, else with torchvision's downloader.

    Raises:
        DataUnavailable: Neither way works.
    """
    if directory := _already_here():
        try:
            read_all(directory)
            return directory
        except DataUnavailable as error:
            _say(f"{error}; fetching it anew")
    try:
        debian.unpack(DEBIAN_PACKAGE, DOWNLOADS)
    except DataUnavailable as error:
        _say(f"{error}; trying torchvision's downloader")
        _download()
    directory = locate(None)
    read_all(directory)
    return directory


def _already_here() -> Path | None:
    places = (DOWNLOADS / INSTALLED, Path("/") / INSTALLED, DOWNLOADS / "FashionMNIST" / "raw")
    return next((directory for directory in places if _holds_all(directory)), None)


def _download() -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_S):
            FashionMNIST(str(DOWNLOADS), download=True)
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(f"{HOW_TO_GET_IT}\nDownloading it failed: {error}") from error
    return DOWNLOADS / "FashionMNIST" / "raw"


def _holds_all(directory: Path) -> bool:
    return all(_file(directory, name) is not None for name in SHA256)


def _file(directory: Path, name: str) -> Path | None:
    candidates = (directory / name, directory / f"{name}.gz")
    return next((file for file in candidates if file.is_file()), None)


def read_all(directory: Path) -> dict[str, bytes]:
    """Return the four files' decompressed bytes, by name.

    Raises:
        DataUnavailable: A file cannot be read, or is not the published one.
    """
    return {name: _read(directory, name) for name in SHA256}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _read(directory: Path, name: str) -> bytes:
    file = _file(directory, name)
    if file is None:
        raise DataUnavailable(f"{directory / name} has gone")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailable(f"{file} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise DataUnavailable(f"{file} is not the published file: its decompressed sha256 differs; fetch it anew")
    return content


def _parse(files: dict[str, bytes], part: str) -> LabelledImages:
    # The sha256 was checked, so the idx headers (16 and 8 bytes) need no reading.
    images = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16)
    labels = np.frombuffer(files[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8)
    images_NCHW = torch.from_numpy(images.reshape(-1, 1, *SIZE).copy())
    return LabelledImages(images_NCHW, torch.from_numpy(labels.astype(np.int64)))


def _first(images: LabelledImages, limit: int | None) -> LabelledImages:
    return images if limit is None else images.take(torch.arange(min(limit, len(images))))


if __name__ == "__main__":
    try:
        print(f"Fashion-MNIST is in {fetch()}")
    except DataUnavailable as unavailable:
        raise SystemExit(str(unavailable)) from None
