"""Raw input -> example -> batch: what a manifest says its model takes. Axes: N items, C, H, W, L tokens.

Evaluation, the golden check and serving all prepare inputs here, so that they cannot differ.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import TensorUnfit, TextNotUtf8
from models.manifest import ImageDecoding, Manifest, Tokenization
from models.preprocessing import decode_image
from models.tokenization import Tokenizer, pad


class Preparation(Protocol):
    """How raw inputs become a batch."""

    def prepare(self, content: bytes) -> Tensor:
        """Turn one raw input into an example; raises ExampleError."""
        ...

    def collate(self, examples: Sequence[Tensor]) -> Tensor:
        """Turn examples into a batch, whatever their shapes."""
        ...


class ImagePreparation:
    """Image files -> uint8 of shape NCHW.

    Args:
        decoding: The model's.
        max_pixels: A tighter limit than the model's, if the caller has one.
    """

    def __init__(self, decoding: ImageDecoding, max_pixels: int | None = None) -> None:
        self.decoding = decoding
        self.max_pixels = max_pixels

    def prepare(self, content: bytes) -> Tensor:
        """Decode an image file into uint8 of shape CHW."""
        return decode_image(content, self.decoding, self.max_pixels)

    def accept(self, values: NDArray[np.generic]) -> Tensor:
        """Take a decoded image, uint8 of shape CHW."""
        C, H, W = self.decoding.shape_CHW
        if values.dtype != np.uint8 or values.shape != (C, H, W):
            raise TensorUnfit(f"the image is {values.dtype} of shape {values.shape}, not uint8 of {(C, H, W)}")
        # A copy, for what came over the network can only be read.
        return torch.from_numpy(np.array(values))

    def collate(self, examples: Sequence[Tensor]) -> Tensor:
        """Stack examples."""
        return torch.stack(list(examples))


class TextPreparation:
    """UTF-8 -> int64 token ids of shape NL, padded with 0.

    Args:
        tokenizer: The model's.
        tokenization: The model's limits.
    """

    def __init__(self, tokenizer: Tokenizer, tokenization: Tokenization) -> None:
        self.tokenizer = tokenizer
        self.tokenization = tokenization

    def prepare(self, content: bytes) -> Tensor:
        """Split a text into its token ids, of shape L."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise TextNotUtf8("the text is not UTF-8") from None
        limits = self.tokenization
        return self.tokenizer.encode(text, limits.max_tokens, truncate=limits.truncate)

    def accept(self, values: NDArray[np.generic]) -> Tensor:
        """Take token ids, int64 of shape L; padding at the end is left out."""
        if values.dtype != np.int64 or values.ndim != 1:
            raise TensorUnfit(f"the tokens are {values.dtype} of shape {values.shape}, not int64 of one dimension")
        ids, limits = values.astype(np.int64, copy=False), self.tokenization
        return self.tokenizer.check(ids, limits.max_tokens, truncate=limits.truncate)

    def collate(self, examples: Sequence[Tensor]) -> Tensor:
        """Pad examples to the longest."""
        return pad(examples)


def preparation_of(
    manifest: Manifest, read: Callable[[str], bytes], max_pixels: int | None = None
) -> ImagePreparation | TextPreparation:
    """Return how a model's inputs are prepared.

    Args:
        manifest: The model's.
        read: Path of a listed file -> its bytes.
        max_pixels: A tighter limit on images than the model's, if the caller has one.

    Raises:
        TokenizerInvalid: The bundle's tokenizer is none.
    """
    if manifest.decode is not None:
        return ImagePreparation(manifest.decode, max_pixels)
    tokenization = manifest.tokenize
    assert tokenization is not None, "the manifest's own check: it has one of the two"  # noqa: S101
    return TextPreparation(Tokenizer(read(tokenization.file)), tokenization)
