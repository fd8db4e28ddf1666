"""Whoever has schemathesis read the OpenAPI document and try every operation with every check finds nothing.

The command is a stranger's, and its configuration the one at the root of the repository.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api_keys import line_of, new_key
from models.repository import Repository
from tests.bundles import LABELS, MOODS, publish, publish_texts, publish_writer
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.images import png
from tests.servers import ROOT, Process, process

# Of each operation: where nothing is changed, and where models are unloaded meanwhile.
EXAMPLES, EXAMPLES_OF_ADMINISTRATION = (300, 300) if LONG else (12, 4)
CONFIGURATION = ROOT / "schemathesis.toml"
# What the document's example of a tensor is for.
OF_THE_EXAMPLE = """
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
[operations.parameters]
"path.name" = "shades"
"""
KEY, ADMIN_KEY = new_key(), new_key()
AS_CLIENT = {"Authorization": f"Bearer {KEY}"}
AS_ADMINISTRATOR = {"Authorization": f"Bearer {ADMIN_KEY}"}
LONGEST_ANSWER_S = 10
PATIENCE_S = 3600 if LONG else 200

Report = dict[str, Any]


@pytest.fixture
def models(repository: Repository) -> Repository:
    """One of each kind, with a version that is current and one that is tried."""
    for publish_one, name in ((publish, "shades"), (publish_texts, "moods"), (publish_writer, "echo")):
        older, newer = (publish_one(repository, name).manifest.version for _ in range(2))
        repository.rollback(name, older)
        repository.set_candidate(name, newer, share=0.3, shadow=0.3)
    return repository


@pytest.fixture
def service(models: Repository, tmp_path: Path) -> Iterator[Process]:
    """One with everything on that adds operations."""
    (tmp_path / "keys").write_text(line_of("client", KEY))
    (tmp_path / "admin-keys").write_text(line_of("operator", ADMIN_KEY))
    with process(
        models.root,
        default_text_model="moods",
        api_keys_file=tmp_path / "keys",
        admin_keys_file=tmp_path / "admin-keys",
        feedback_file=tmp_path / "feedback.sqlite",
    ) as started:
        yield started.until_ready()


def dictionaries(repository: Repository) -> str:
    """Configuration by which names mostly are a model's: of what is not found there is little to find out."""
    names = repository.names()
    versions = sorted({version for name in names for version in repository.versions(name)})
    words = [*names, *versions, *LABELS, *MOODS, "images", "tokens", "scores", "good film"]
    return f"""
        [dictionaries]
        names = {{ values = {json.dumps(names)} }}
        versions = {{ values = {json.dumps(versions)} }}
        words = {{ values = {json.dumps(words)} }}
        [generation.dictionaries]
        string = {{ dictionary = "words", probability = 0.3 }}
        [parameters]
        "path.name" = {{ dictionary = "names", probability = 0.8 }}
        """


def try_all(service: Process, directory: Path, configuration: str, examples: int, *arguments: str) -> Report:
    """Run schemathesis over all that the service has, and return its report."""
    file, report = directory / "schemathesis.toml", directory / "report.json"
    file.write_text(CONFIGURATION.read_text() + configuration)
    seed = random.randrange(2**32) if LONG else 1  # noqa: S311 (no secret is made of it)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(file), "run"]
    command += [f"{service.client.base_url}/openapi.json", "--header", f"Authorization: Bearer {ADMIN_KEY}"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none"]
    command += ["--max-response-time", str(LONGEST_ANSWER_S), "--continue-on-failure", "--no-color"]
    command += ["--report", "json", "--report-json-path", str(report), *arguments]
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, f"seed {seed}\n{ended.stdout}{ended.stderr}"
    found: Report = json.loads(report.read_text())
    return found


def accepted(report: Report) -> Counter[str]:
    """How many requests of each operation were answered with what they asked for."""
    return Counter(
        {
            operation: sum(phase["accepted"] for phase in phases.values())
            for operation, phases in report["valid_rates"].items()
        }
    )


def test_every_operation_does_what_the_document_says(
    service: Process, models: Repository, tmp_path: Path, figures: Figures
) -> None:
    client, words = service.client, dictionaries(models)
    (version, *_) = models.versions("shades")
    pinned = f'{words}"path.version" = "{version}"{OF_THE_EXAMPLE}'
    plain = ["--exclude-tag", "administration", "--phases", "examples,coverage,fuzzing"]
    asked = try_all(service, tmp_path, pinned, EXAMPLES, *plain)
    # Models are unloaded meanwhile, and versions tried and made current.
    mixed = words + '"path.version" = { dictionary = "versions", probability = 0.8 }'
    administered = try_all(service, tmp_path, mixed, EXAMPLES_OF_ADMINISTRATION)
    figures.tell(
        "schemathesis over every operation of the OpenAPI document, all checks",
        "nothing found",
        f"nothing by {asked['test_cases']['generated'] + administered['test_cases']['generated']:,} requests",
    )
    operations = client.get("/openapi.json", headers=AS_CLIENT).json()["paths"]
    assert set(accepted(asked) + accepted(administered)) == {
        f"{method.upper()} {path}" for path, methods in operations.items() for method in methods
    }
    for name in models.names():
        client.post(f"/v2/repository/models/{name}/load", headers=AS_ADMINISTRATOR).raise_for_status()
    answer = client.post("/predict", content=png(0), headers={"Content-Type": "image/png", **AS_CLIENT})
    assert answer.json()["predictions"][0]["label"] == "dark"
    assert not [line for line in service.lines if "Traceback" in line]
