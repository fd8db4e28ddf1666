"""A model as OpenVINO runs it, on the CPU. Axes: N items, K labels.

OpenVINO is optional: a bundle with such a backend is served by its TorchScript one where it is not installed.
"""

import sys
import threading
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.errors import BackendUnavailable

# What is computed in the named precision; the quantized parts of an int8 graph say so themselves.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoGraph:
    """An OpenVINO graph, compiled for many batches at once on one thread each, and for one that has all threads.

    Args:
        content: The graph, as XML.
        weights: Its constants.
        precision: Of the arithmetic.
        threads: Of the CPU, that it may use in all.

    Raises:
        BackendUnavailable: OpenVINO is not installed.
    """

    def __init__(self, content: bytes, weights: bytes, precision: str, threads: int = 1) -> None:
        openvino = import_openvino()
        core = _core(openvino)
        # Without a copy: what is not repacked for the processor is read from here for as long as the graph lives.
        self._weights = torch.frombuffer(bytearray(weights), dtype=torch.uint8).numpy()
        graph = core.read_model(content, openvino.Tensor(self._weights, shared_memory=True))

        def compiled(streams: int) -> Any:  # noqa: ANN401 (of a library without types)
            return core.compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": streams,
                    # Bound to a core each, the threads of two graphs would share one while another is idle.
                    "ENABLE_CPU_PINNING": False,
                    "ENABLE_HYPER_THREADING": True,
                },
            )

        # Its own threads may be busy with another batch.
        self.bounded = False
        self.on_caller = False
        self._threads = threads
        self._many = Requests(compiled(threads))
        self._alone = Requests(compiled(1)) if threads > 1 else self._many

    def __call__(self, batch: Tensor, threads: int = 1) -> Tensor:
        """Return float32 scores of shape NK; many threads may call at once.

        Args:
            batch: As the manifest's inputs say.
            threads: 1, or all that it may use: for a batch that has the machine to itself.
        """
        requests = self._many if threads == 1 else self._alone
        return requests.run(batch)


class Requests:
    """Requests of a compiled graph, each used by one thread at a time."""

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 (of a library without types)
        self._compiled = compiled
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def run(self, batch: Tensor) -> Tensor:
        """Run a batch, in a request that is idle, or else in a new one."""
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            # Shared, since a copy would take a batch of another shape for good; it is kept until the next one.
            outputs = request.infer([batch.numpy()], share_inputs=True)
            return torch.from_numpy(outputs[0]).float()
        finally:
            with self._lock:
                self._idle.append(request)


def _core(openvino: ModuleType) -> Any:  # noqa: ANN401 (of a library without types)
    """Return the process's one `Core`, which is never let go.

    The CPU plugin of each gives the thread that makes it an alternate stack for signals and, when it ends, puts
    back the one from before (OpenVINO's pull request 11894). Of two that do not end in reverse order, the second
    puts back one that is freed, and the next signal that Python handles ends the process.
    """
    with _core_lock:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]


_cores: list[Any] = []
_core_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """Return the library, kept from telling anyone that it is used.

    Raises:
        BackendUnavailable: It is not installed.
    """
    # When it is imported it writes a client number into the home folder and reports to its maker, with no setting
    # against it; it does neither where this module cannot be imported. None is Python's own way of saying so.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(f"OpenVINO is not installed ({error}); the extra `openvino` has it") from error
    library: ModuleType = openvino
    return library
