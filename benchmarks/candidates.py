"""The forms of a network that a backend could serve, each made and measured in a process of its own. Axes: N, K.

    python -m benchmarks.candidates lay-out resnet18 FOLDER
    python -m benchmarks.candidates make NAME FOLDER
    python -m benchmarks.candidates measure NAME FOLDER --threads 1

The parts of `python -m benchmarks.backends`, which starts them; the last line that one prints is its answer, as
JSON. Libraries are imported where they are used: a candidate's process holds its own alone.
"""

import argparse
import importlib.metadata
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from benchmarks.networks import NETWORKS, QUANTIZED_BY, SPEC, TIMED_IMAGES, Folder, Logits, crops
from models.errors import BackendUnavailable
from models.instructions import BF16, has_instructions
from models.openvino_graph import OpenVinoGraph

BATCHES = (1, 8, 32)
MEASURED_S = 0.5
# The first calls of TorchScript are slow, and so are the first with each size of batch.
WARM_CALLS = 3
MOST_IN_A_BATCH = 64
ONNX_REQUIREMENTS = Path(__file__).with_name("peers") / "onnxruntime" / "requirements.txt"

# uint8 images NCHW -> logits NK.
Run = Callable[[Tensor], Tensor]

warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)


class Made(BaseModel):
    """What it took to make a candidate.

    Attributes:
        make_s: From the network in memory to the files.
        size_mb: Of the files, all that serving needs.
        versions: Of the libraries that it takes besides torch.
    """

    make_s: float
    size_mb: float
    versions: dict[str, str]


class Measured(BaseModel):
    """What a candidate did on some number of threads.

    Attributes:
        load_s: From the files to the first answer; to import its library counts, to import torch does not.
        images_per_s: Batch size -> that.
        largest_difference: Of any logit from eager fp32.
        largest_logit: Of eager fp32, to compare that with.
        cores_used: Seconds of processor for each second of the timed ones.
    """

    load_s: float
    images_per_s: dict[int, float]
    largest_difference: float
    largest_logit: float
    cores_used: float


@dataclass(frozen=True)
class Candidate:
    """A form of a network.

    Attributes:
        make: Writes it into an empty folder.
        load: Reads it from there, to run on so many threads.
        libraries: That it takes besides torch.
        requirements: Of the environment that it is made and run in, if it is none of Lantern's.
    """

    make: Callable[[Logits, Path], None]
    load: Callable[[Path, int], Run]
    libraries: Sequence[str] = ()
    requirements: Path | None = None


def _make_torchscript(graph: Logits, path: Path) -> None:
    # Not frozen, as Lantern publishes it: a frozen file is one for one device.
    torch.jit.script(graph).save(str(path / "model.ts.pt"))


def _make_channels_last(graph: Logits, path: Path) -> None:
    _make_torchscript(graph.in_channels_last(), path)


def _make_torchscript_bf16(graph: Logits, path: Path) -> None:
    _make_torchscript(graph.in_channels_last().in_bf16(), path)


def _load_torchscript(path: Path, _threads: int) -> Run:
    run: Run = _frozen(path)
    return run


def _load_optimized(path: Path, _threads: int) -> Run:
    # When it is loaded, for a file of it cannot be loaded again.
    run: Run = torch.jit.optimize_for_inference(_frozen(path))
    return run


def _frozen(path: Path) -> torch.jit.ScriptModule:
    module = torch.jit.load(str(path / "model.ts.pt"), map_location="cpu").eval()
    frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    return frozen


def _exported(graph: Logits) -> torch.export.ExportedProgram:
    size = torch.export.Dim("N", min=1, max=MOST_IN_A_BATCH)
    # A batch of more than one, or the size is taken for a constant.
    images_NCHW = crops(BATCHES[1], seed=0)
    with torch.no_grad():
        return torch.export.export(graph, (images_NCHW,), dynamic_shapes=({0: size},))


def _make_aoti(graph: Logits, path: Path) -> None:
    options = {
        "freezing": True,
        # Else the number of threads of the process that compiles is in the compiled code.
        "cpp.dynamic_threads": True,
    }
    program = _exported(graph)
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path / "model.pt2"), inductor_configs=options
        )


def _make_aoti_bf16(graph: Logits, path: Path) -> None:
    _make_aoti(graph.in_bf16(), path)


def _load_aoti(path: Path, _threads: int) -> Run:
    run: Run = torch._inductor.aoti_load_package(str(path / "model.pt2"))
    return run


def _make_openvino(graph: Logits, path: Path) -> None:
    _write_openvino(_converted(graph), path)


def _make_openvino_int8(graph: Logits, path: Path) -> None:
    from training.optimizing.openvino import quantize

    _write_openvino(quantize(_converted(graph), list(crops(QUANTIZED_BY, seed=1))), path)


def _converted(graph: Logits) -> Any:  # noqa: ANN401 (of a library without types)
    from training.export import script
    from training.optimizing.openvino import convert

    return convert(script(graph), SPEC)


def _write_openvino(graph: Any, path: Path) -> None:  # noqa: ANN401 (of a library without types)
    from training.optimizing.openvino import serialized

    content, weights = serialized(graph)
    (path / "model.xml").write_bytes(content)
    (path / "model.bin").write_bytes(weights)


def _load_openvino(precision: str) -> Callable[[Path, int], Run]:
    def load(path: Path, threads: int) -> Run:
        # Otherwise it computes in fp32, and says nothing.
        if precision == "bf16" and not has_instructions(BF16):
            raise BackendUnavailable("the processor has no instructions for bf16")
        content, weights = (path / "model.xml").read_bytes(), (path / "model.bin").read_bytes()
        graph = OpenVinoGraph(content, weights, precision, threads)
        return lambda images_NCHW: graph(images_NCHW, threads)

    return load


def _make_onnx(graph: Logits, path: Path) -> None:
    torch.onnx.export(
        _exported(graph),
        f=path / "model.onnx",
        input_names=[SPEC.name],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _make_onnx_int8(graph: Logits, path: Path) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        _make_onnx(graph, Path(scratch))
        # Folds what can be folded, as the library asks for before it quantizes.
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(Path(scratch) / "model.onnx", folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            path / "model.onnx",
            _calibration(quantization.CalibrationDataReader),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _calibration(base: type) -> Any:  # noqa: ANN401 (of a library that is not here)
    images_NCHW = crops(QUANTIZED_BY, seed=1)
    batches = iter([{SPEC.name: image_CHW[None].numpy()} for image_CHW in images_NCHW])
    return type("Calibration", (base,), {"get_next": lambda _: next(batches, None)})()


def _load_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path / "model.onnx", options, providers=["CPUExecutionProvider"])

    def run(images_NCHW: Tensor) -> Tensor:
        (logits_NK,) = session.run(None, {SPEC.name: images_NCHW.numpy()})
        return torch.from_numpy(logits_NK)

    return run


OPENVINO = ("openvino",)
ONNX = ("onnxruntime", "onnx", "onnxscript")
CANDIDATES = {
    "torchscript": Candidate(_make_torchscript, _load_torchscript),
    "torchscript-channels-last": Candidate(_make_channels_last, _load_torchscript),
    "torchscript-optimized": Candidate(_make_channels_last, _load_optimized),
    "torchscript-bf16": Candidate(_make_torchscript_bf16, _load_torchscript),
    "aoti-fp32": Candidate(_make_aoti, _load_aoti),
    "aoti-bf16": Candidate(_make_aoti_bf16, _load_aoti),
    "openvino-fp32": Candidate(_make_openvino, _load_openvino("fp32"), OPENVINO),
    "openvino-bf16": Candidate(_make_openvino, _load_openvino("bf16"), OPENVINO),
    "openvino-int8": Candidate(_make_openvino_int8, _load_openvino("int8"), (*OPENVINO, "nncf")),
    "onnxruntime-fp32": Candidate(_make_onnx, _load_onnx, ONNX, ONNX_REQUIREMENTS),
    "onnxruntime-int8": Candidate(_make_onnx_int8, _load_onnx, ONNX, ONNX_REQUIREMENTS),
}


def make(name: str, folder: Folder) -> Made:
    """Make a candidate, and say what that took."""
    graph, path = folder.graph(), folder.of(name)
    start_s = time.perf_counter()
    CANDIDATES[name].make(graph, path)
    make_s = time.perf_counter() - start_s
    size_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    versions = {library: importlib.metadata.version(library) for library in CANDIDATES[name].libraries}
    return Made(make_s=make_s, size_mb=size_mb, versions=versions)


def measure(name: str, folder: Folder, threads: int) -> Measured:
    """Load a candidate and run it, on so many threads.

    Raises:
        ValueError: Its logits are no numbers.
        Exception: Whatever its library raises.
    """
    torch.set_num_threads(threads)
    images_NCHW, expected_NK = folder.images(), folder.logits()
    start_s = time.perf_counter()
    run = CANDIDATES[name].load(folder.of(name), threads)
    with torch.inference_mode():
        run(images_NCHW[:1])
        load_s = time.perf_counter() - start_s
        difference_NK = (run(images_NCHW[:TIMED_IMAGES]) - expected_NK).abs()
        timed = {size: _timed(run, images_NCHW[:size]) for size in BATCHES}
    if not difference_NK.isfinite().all():
        raise ValueError("some of its logits are no numbers")
    return Measured(
        load_s=load_s,
        images_per_s={size: each.calls * size / each.wall_s for size, each in timed.items()},
        largest_difference=difference_NK.max().item(),
        largest_logit=expected_NK.abs().max().item(),
        cores_used=sum(each.cpu_s for each in timed.values()) / sum(each.wall_s for each in timed.values()),
    )


@dataclass(frozen=True)
class _Timed:
    calls: int
    wall_s: float
    cpu_s: float


def _timed(run: Run, batch: Tensor) -> _Timed:
    for _ in range(WARM_CALLS):
        run(batch)
    calls, start_s, start_cpu_s = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start_s < MEASURED_S:
        run(batch)
        calls += 1
    return _Timed(calls, time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def main() -> None:
    """Do one part, and print its answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for part, names in (("lay-out", NETWORKS), ("make", CANDIDATES), ("measure", CANDIDATES)):
        each = parts.add_parser(part)
        each.add_argument("name", choices=tuple(names))
        each.add_argument("folder", type=lambda path: Folder(Path(path)))
        if part == "measure":
            each.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.part == "lay-out":
        arguments.folder.lay_out(arguments.name)
    elif arguments.part == "make":
        print(make(arguments.name, arguments.folder).model_dump_json())
    else:
        print(measure(arguments.name, arguments.folder, arguments.threads).model_dump_json())


if __name__ == "__main__":
    main()
