"""What every peer runs gives what the service itself gives."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from benchmarks.peers.user_code import Classifier, models_in, path_of, read_options
from models.manifest import Tokenization
from models.preparation import TextPreparation
from models.tokenization import SPECIAL_TOKENS, UNKNOWN
from models.tokenization import Tokenizer as OurTokenizer


class Lengths(torch.nn.Module):
    """Scores a text by how many of its tokens are no padding."""

    def forward(self, ids_NL: torch.Tensor) -> torch.Tensor:
        share_N = (ids_NL != 0).float().mean(1)
        return torch.stack([share_N, 1 - share_N], 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = [*SPECIAL_TOKENS, "a", "film"]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=words[UNKNOWN]))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    torch.jit.script(Lengths()).save(str(tmp_path / "model.ts.pt"))
    (tmp_path / "labels.json").write_text(json.dumps(["full", "empty"]))
    (tmp_path / "task.json").write_text(json.dumps({"kind": "text", "max_tokens": 6}))
    return tmp_path


def test_a_servers_options_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["serve.py", "--folder", "somewhere", "--port", "8000", "--threads", "2"]
    monkeypatch.setattr("sys.argv", words)

    options = read_options()

    assert (options.folder, options.port, options.threads) == (Path("somewhere"), 8000, 2)


def test_an_option_left_out_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["serve.py", "--folder", "somewhere", "--threads", "2"])

    with pytest.raises(SystemExit):
        read_options()
    assert "--port" in capsys.readouterr().err


def test_the_only_model_is_the_folders_own(folder: Path) -> None:
    assert models_in(folder) == {"classifier": folder}
    assert path_of("classifier") == "/predict"


def test_each_of_several_models_has_a_folder_and_a_path(tmp_path: Path) -> None:
    for name in ("tiny", "resnet18"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.json").touch()

    assert models_in(tmp_path) == {"resnet18": tmp_path / "resnet18", "tiny": tmp_path / "tiny"}
    assert path_of("tiny") == "/predict/tiny"


def test_texts_become_the_batches_that_the_service_makes(folder: Path) -> None:
    classifier = Classifier(folder, threads=1)
    content = (folder / "tokenizer.json").read_bytes()
    limits = Tokenization(file="tokenizer.json", max_tokens=6, truncate=True)
    preparation = TextPreparation(OurTokenizer(content), limits)

    for text in (b"a film", b"[PAD] film", b"a film a film a film a film", "caf\u00e9 film".encode()):
        assert torch.equal(classifier.prepare(text), preparation.prepare(text))


def test_shorter_texts_are_padded(folder: Path) -> None:
    classifier = Classifier(folder, threads=1)

    answers = classifier.predict([classifier.prepare(text) for text in (b"a", b"a film a film")])

    assert [answer["top"][0] for answer in answers] == [
        {"label": "empty", "score": 0.75},
        {"label": "full", "score": 1.0},
    ]
