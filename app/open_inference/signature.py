"""What a model takes and gives, in the protocol's words: true to its manifest."""

from collections.abc import Sequence
from typing import NamedTuple

from app.open_inference.datatypes import BYTES, DATATYPE_BY_DTYPE
from models.manifest import Manifest, TensorSpec

VARIABLE = -1
TEXTS = "texts"  # what a model wrote, beside the tokens it wrote it in


class Spec(NamedTuple):
    """An input or output; -1 in its shape is a dimension that varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a tensor may have this shape."""
        return len(shape) == len(self.shape) and all(
            wanted in (VARIABLE, given) for wanted, given in zip(self.shape, shape, strict=True)
        )


def input_of(manifest: Manifest) -> Spec:
    """The one input of a model."""
    return _spec(manifest.inputs[0])


def takes_alike(manifest: Manifest, other: Manifest) -> bool:
    """Whether a tensor for one model is the same to another: of its shape, and its token ids the same words."""
    return input_of(manifest) == input_of(other) and _words_sha256(manifest) == _words_sha256(other)


def outputs_of(manifest: Manifest) -> list[Spec]:
    """The outputs of a model, in the order of its manifest; of one that writes, also what it wrote."""
    outputs = [_spec(each) for each in manifest.outputs]
    if manifest.write is not None:
        outputs.append(Spec(TEXTS, BYTES, (VARIABLE, VARIABLE)))
    return outputs


def _words_sha256(manifest: Manifest) -> str | None:
    return None if manifest.tokenize is None else manifest.files[manifest.tokenize.file].sha256


def _spec(tensor: TensorSpec) -> Spec:
    shape = tuple(VARIABLE if isinstance(size, str) else size for size in tensor.shape)
    return Spec(tensor.name, DATATYPE_BY_DTYPE[tensor.dtype], shape)
