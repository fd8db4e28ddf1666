"""A TorchScript file of a package that many install, which is no model of images or texts."""

from pathlib import Path

from tests.end_to_end.commands import run
from training.datasets import pypi

# MIT. It takes a piece of sound and its sampling rate, and keeps state from one call to the next.
PACKAGE = ("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
FILE = "silero_vad/data/silero_vad.jit"


def test_a_voice_detector_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    file, labels, models = tmp_path / "silero_vad.jit", tmp_path / "labels.txt", tmp_path / "models"
    file.write_bytes(pypi.member(pypi.archive(*PACKAGE), FILE))
    labels.write_text("silence\nspeech\n")
    status, output = run(
        "import", str(file), "--name", "voice", "--labels", str(labels), "--models-dir", str(models)
    )
    assert status == 1
    assert output.strip().splitlines()[-1] == (
        "nothing was published: import: silero_vad.jit takes (x: Tensor, sr: int); "
        "a model of images takes one tensor"
    )
    assert "Traceback" not in output
    assert not models.exists()
