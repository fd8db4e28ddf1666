"""A version is trained beside the current one, tried on a share of the requests, and promoted: by command."""

import re
from pathlib import Path

import httpx
import torch

from models.repository import Repository
from tests.bundles import Always
from tests.end_to_end.commands import run
from tests.images import png
from tests.servers import process, until


def answered_by(client: httpx.Client, key: str) -> str:
    headers = {"Content-Type": "image/png", "X-Routing-Key": key}
    version: str = client.post("/predict", content=png(0), headers=headers).json()["version"]
    return version


def test_a_candidate_is_published_tried_and_promoted_while_it_is_served(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dark\ngrey\nlight\n")
    for index in (0, 1):
        torch.jit.save(torch.jit.script(Always(index)), tmp_path / f"{index}.pt")
    common = ["--labels", str(tmp_path / "labels.txt"), "--name", "shades", "--size", "8"]
    common += ["--models-dir", str(tmp_path / "models")]
    status, output = run("import", str(tmp_path / "0.pt"), *common, "--candidate")
    assert (status, "without --candidate" in output) == (1, True), output
    status, output = run("import", str(tmp_path / "0.pt"), *common)
    assert status == 0, output
    current = Repository(tmp_path / "models").current("shades").version
    with process(tmp_path / "models", drain_grace_s=0, reload_interval_s=0.05, workers=2) as service:
        client = service.until_ready().client
        status, output = run("import", str(tmp_path / "1.pt"), *common, "--candidate")
        assert status == 0, output
        keys = [f"user-{number}" for number in range(40)]
        assert {answered_by(client, key) for key in keys} == {current}
        # The command that was told is the one that tries it.
        told = re.search(r"python (-m models\.rollout) (.*--share 0)\.1(.*)", output)
        assert told is not None, output
        rollout = tuple(told[1].split())
        name, tried, *asked = (told[2] + ".5" + told[3]).split()
        assert run(name, tried, *asked, python=rollout)[0] == 0
        until(lambda: {answered_by(client, key) for key in keys} == {current, tried})
        assert run(name, "--promote", *asked[2:], python=rollout)[0] == 0
        until(lambda: {answered_by(client, key) for key in keys} == {tried})
