import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import BackendUnavailable
from models.manifest import TensorSpec
from models.openvino_graph import OpenVinoGraph, import_openvino
from tests.bundles import openvino_files
from tests.servers import ROOT
from training.export import script

SPEC = TensorSpec(name="images", dtype="uint8", shape=("N", 3, 16, 16))


class Small(nn.Module):
    """A convolution, and the control flow that scripted functions are full of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        features_NCHW = nn.functional.relu(self.convolution(images_NCHW.float() / 255))
        pooled_NC = nn.functional.adaptive_avg_pool2d(features_NCHW, (1, 1)).flatten(1)
        return nn.functional.softmax(self.head(pooled_NC), dim=1)


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files() -> tuple[bytes, bytes]:
    graph, weights = openvino_files(script(Small()), SPEC).values()
    return graph, weights


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_it_gives_the_scores_of_the_module(files: tuple[bytes, bytes], threads: int, count: int) -> None:
    graph = OpenVinoGraph(*files, "fp32", threads=2)
    with torch.inference_mode():
        wanted_NK = Small()(images(count))
    assert torch.allclose(graph(images(count), threads), wanted_NK, atol=1e-5)


def test_an_answer_stays_when_the_next_is_made(files: tuple[bytes, bytes]) -> None:
    graph = OpenVinoGraph(*files, "fp32")
    first_NK = graph(images(4))
    kept_NK = first_NK.clone()
    graph(255 - images(4))
    assert torch.equal(first_NK, kept_NK)


def test_many_threads_may_ask_at_once(files: tuple[bytes, bytes]) -> None:
    graph = OpenVinoGraph(*files, "fp32", threads=2)
    batches = [images(1 + index % 7) for index in range(200)]
    with torch.inference_mode():
        wanted = [Small()(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: graph(batches[place], 1 + place % 2), range(200)))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


def test_lower_precision_comes_near(files: tuple[bytes, bytes]) -> None:
    exact_NK, near_NK = (OpenVinoGraph(*files, precision)(images(32)) for precision in ("fp32", "bf16"))
    assert (exact_NK - near_NK).abs().max() < 0.02


def test_a_batch_of_another_shape_raises_and_leaves_the_graph_usable(files: tuple[bytes, bytes]) -> None:
    graph = OpenVinoGraph(*files, "fp32")
    with pytest.raises(RuntimeError):
        graph(torch.zeros(1, 3, 9, 9, dtype=torch.uint8)[:, :2])
    assert graph(images(2)).shape == (2, 4)


def test_without_the_library_it_says_which_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match="extra `openvino`"):
        import_openvino()


def test_the_library_is_kept_from_reporting_its_use(tmp_path: Path) -> None:
    # On import it would write a client number into the home folder, and send it to its maker.
    code = (
        "import sys; from models.openvino_graph import import_openvino; import_openvino().Core(); "
        "print([name for name, module in sys.modules.items() if 'telemetry' in name and "
        "name.startswith('openvino_telemetry') and module is not None])"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_is_handled_after_graphs_are_gone(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    # The library gives its thread a stack for signals: what is left after a graph must not be one that is freed.
    for name, content in zip(("graph.xml", "graph.bin"), files, strict=True):
        (tmp_path / name).write_bytes(content)
    # To the very thread, which handles it before it goes on; another might be given it otherwise.
    code = (
        "import gc, signal, threading; from pathlib import Path; from models.openvino_graph import OpenVinoGraph\n"
        "files = [Path(name).read_bytes() for name in ('graph.xml', 'graph.bin')]\n"
        "first = OpenVinoGraph(*files, 'fp32'); second = OpenVinoGraph(*files, 'fp32')\n"
        "del first; gc.collect(); del second; gc.collect()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # Ignored in what a shell runs behind it.
        "try:\n    signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('interrupted')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
