"""TorchScript -> OpenVINO, in fp32 or quantized to int8.

OpenVINO's converter and NNCF are optional, and named only here; to run what is published neither is wanted.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.errors import BackendUnavailable
from models.manifest import TensorSpec
from models.openvino_graph import import_openvino
from models.operators import NO_OTHERS
from training.errors import GateFailed
from training.export import Exported

# A graph of OpenVINO's; the library has no types.
Graph = Any

# What computes with weights; the first of these look at raw inputs, the last decides.
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
FIRST_SPARED, LAST_SPARED = 3, 1


def convert(content: bytes, spec: TensorSpec, allowed: frozenset[str] = NO_OTHERS) -> Graph:
    """Convert a TorchScript file.

    Args:
        content: The file.
        spec: Of its input.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.

    Raises:
        ArchiveInvalid, OperatorsNotAllowed: It would not be served.
        BackendUnavailable: OpenVINO is not installed.
        GateFailed: It cannot be converted, with the reason.
    """
    openvino = import_openvino()
    # Frozen, control flow that hangs on constants is gone, which the converter would not take.
    exported = Exported(content, allowed)
    exported.freeze(torch.device("cpu"))
    shape = openvino.PartialShape([size if isinstance(size, int) else -1 for size in spec.shape])
    dtype = {"uint8": openvino.Type.u8, "int64": openvino.Type.i64, "float32": openvino.Type.f32}[spec.dtype]
    try:
        return openvino.convert_model(exported.module, input=[(shape, dtype)])
    except Exception as error:  # The converter raises what it likes.
        raise GateFailed(f"OpenVINO cannot convert it: {reason_of(error)}") from error


def quantize(graph: Graph, examples: Sequence[Tensor], *, spare_ends: bool = False) -> Graph:
    """Return a graph in int8, whose ranges are those of what examples give.

    Source: post-training quantization with bias correction, as NNCF has it (Nagel et al., arXiv:1906.04721,
    section 4.2); that the first and last layers are the most sensitive, Krishnamoorthi, arXiv:1806.08342.

    Args:
        graph: It stays as it is.
        examples: As the model takes them, without the axis N.
        spare_ends: Leave the first layers and the last in fp32: more accurate, and somewhat slower.

    Raises:
        BackendUnavailable: NNCF is not installed.
        GateFailed: It cannot be quantized, with the reason.
    """
    import_openvino()
    inputs = [example.unsqueeze(0).numpy() for example in examples]
    spared = _ends(graph) if spare_ends else []
    with _silent():
        try:
            import nncf

            return nncf.quantize(
                graph,
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                preset=nncf.QuantizationPreset.MIXED,
                # The exact one: of the published figures, several points of agreement hang on it.
                fast_bias_correction=False,
                advanced_parameters=_advanced(nncf),
                ignored_scope=nncf.IgnoredScope(names=spared),
            )
        except ImportError as error:
            raise BackendUnavailable(f"NNCF is not installed ({error}); the extra `optimize` has it") from error
        except Exception as error:  # Likewise.
            raise GateFailed(f"NNCF cannot quantize it: {reason_of(error)}") from error


def _advanced(nncf: ModuleType) -> Any:  # noqa: ANN401 (of a library without types)
    """Depart from two defaults, for the same speed and more labels that agree.

    Of EfficientNet-Lite0's on squares of photographs 85 in a hundred do by default, 94 with the first and 95 with
    both; of a `fashion`'s on its test images 99.4, 99.6 and 99.8 (`docs/performance.md`).
    """
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.AdvancedQuantizationParameters(
        # The default gives the first layers' weights seven bits, against sums that overflow on processors without
        # INT8's instructions (`models.instructions`), which never get this graph.
        overflow_fix=nncf.OverflowFix.DISABLE,
        # Ranges of activations that lose least, and not all that ever occurred.
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
    )


def _ends(graph: Graph) -> list[str]:
    names = [each.get_friendly_name() for each in graph.get_ordered_ops() if each.get_type_name() in WEIGHTED]
    if len(names) <= FIRST_SPARED + LAST_SPARED:
        raise GateFailed(f"of {len(names)} layers none would be left in int8")
    return names[:FIRST_SPARED] + names[-LAST_SPARED:]


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for name in ("openvino", "nncf"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def serialized(graph: Graph) -> tuple[bytes, bytes]:
    """Return a graph as the bytes of its two files: the XML, and its constants in the precision they have."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "graph.xml")
        openvino.save_model(graph, file, compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    # Bars and remarks about its own work, and about compilers that torch looks for on its behalf.
    loggers = {name: logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")}
    before = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(before[name])


def reason_of(error: Exception) -> str:
    """Return what an error of OpenVINO's comes to."""
    # Pages about places in its source; what failed stands under this heading, if there is one.
    _, _, summary = str(error).rpartition("Summary:")
    lines = [line.strip(" -") for line in summary.splitlines() if line.strip(" -")]
    return "; ".join(lines[-2:]) or type(error).__name__
