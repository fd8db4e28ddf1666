"""The example of docs/open_inference.md runs as it stands there."""

import re
from collections.abc import Callable

import pytest

from models.repository import Repository
from tests.bundles import LABELS, decoding, publish
from tests.open_inference.target import of_this_service
from tests.servers import ROOT, Running

PAGE = (ROOT / "docs/open_inference.md").read_text()
pytestmark = of_this_service


@pytest.fixture(autouse=True)
def unharmed() -> None:
    """Another server than the suite's is asked here."""


def test_the_example_names_the_best_labels(
    repository: Repository,
    serve: Callable[..., Running],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(repository, "imagenet", decode=decoding(color="RGB"))
    running = serve().until_ready()
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(example.replace(":8000", f":{running.port}"), {})  # noqa: S102 (our own page)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.rpartition(":")[2] in LABELS for line in lines)
