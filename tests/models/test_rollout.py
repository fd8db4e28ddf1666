"""A version is tried, promoted and stopped by one file."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from models import rollout
from models.candidate import Candidate
from models.errors import BundleError, CandidateInvalid, ModelNotFound, NotWritable
from models.repository import Repository
from tests.bundles import Always, Shades, stage
from tests.servers import ROOT


def publish_beside(repository: Repository) -> str:
    with repository.staging("shades") as staging:
        stage(staging, "shades", Always(1))
        return repository.publish("shades", staging, current=False).manifest.version


@pytest.fixture
def versions(shades: Repository) -> tuple[str, str]:
    """The current one, and one beside it."""
    return shades.current("shades").version, publish_beside(shades)


def run(repository: Repository, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["rollout", *arguments, "--models-dir", str(repository.root)])
    return rollout.main()


def test_a_version_published_beside_the_current_one_changes_nothing(
    shades: Repository, versions: tuple[str, str]
) -> None:
    assert shades.current("shades").version == versions[0]
    assert shades.versions("shades") == [*versions]
    assert shades.candidate("shades") is None


def test_the_command_tries_promotes_and_stops(
    shades: Repository,
    versions: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    current, tried = versions
    assert run(shades, "shades", tried, "--share", "0.25", monkeypatch=monkeypatch) == 0
    assert "25.0%" in capsys.readouterr().out
    candidate = shades.candidate("shades")
    assert candidate is not None
    assert (candidate.version, candidate.share) == (tried, 0.25)
    assert run(shades, "shades", "--stop", monkeypatch=monkeypatch) == 0
    assert shades.candidate("shades") is None
    assert shades.current("shades").version == current
    run(shades, "shades", tried, "--shadow", "0.5", monkeypatch=monkeypatch)
    candidate = shades.candidate("shades")
    assert candidate is not None
    assert (candidate.share, candidate.shadow) == (0.0, 0.5)
    run(shades, "shades", tried, "--share", "1", monkeypatch=monkeypatch)
    assert run(shades, "shades", "--promote", monkeypatch=monkeypatch) == 0
    assert shades.current("shades").version == tried
    assert shades.candidate("shades") is None


def test_the_command_is_a_program(shades: Repository, versions: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "models.rollout", "shades", versions[1], "--share", "0.5"]
    command += ["--models-dir", str(shades.root)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert shades.candidate("shades") is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shades", "20200101.1", "--share", "0.1"], "no version"),
        (["other", "20200101.1", "--share", "0.1"], "no model"),
        (["shades", "--promote"], "no version of shades is tried"),
        (["shades", "--stop"], "no version of shades is tried"),
        (["other", "--stop"], "no model"),
        (["shades", "--share", "0.1"], "VERSION goes with --share"),
        (["shades", "20200101.1", "--stop"], "VERSION goes with --share"),
        (["shades"], "say either --share"),
        (["shades", "20200101.1", "--share", "0.5", "--stop"], "say either --share"),
        (["shades", "20200101.1", "--share", "0.5", "--shadow", "0.6"], "over 1 together"),
        (["NO", "--stop"], "not a model name"),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_so(
    shades: Repository,
    arguments: Sequence[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(shades, *arguments, monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert error.startswith("nothing was changed: ")
    assert said in error


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "much"])
def test_a_share_that_is_none_is_refused(shades: Repository, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        run(shades, "shades", "20200101.1", f"--share={share}", monkeypatch=monkeypatch)


def test_the_current_version_cannot_be_tried(shades: Repository) -> None:
    with pytest.raises(CandidateInvalid, match="is the current version"):
        shades.set_candidate("shades", shades.current("shades").version, 0.1)


def test_what_was_damaged_since_is_not_promoted(shades: Repository, versions: tuple[str, str]) -> None:
    current, tried = versions
    shades.set_candidate("shades", tried, 0.5)
    (shades.root / "shades" / tried / "model.ts.pt").write_bytes(b"damaged")
    with pytest.raises(BundleError):
        shades.promote("shades")
    assert shades.current("shades").version == current
    assert shades.candidate("shades") is not None


def test_nothing_is_tried_of_a_model_that_has_no_current_version(repository: Repository) -> None:
    with repository.staging("shades") as staging:
        stage(staging, "shades", Shades())
        version = repository.publish("shades", staging, current=False).manifest.version
    with pytest.raises(ModelNotFound):
        repository.set_candidate("shades", version, 0.1)
    with pytest.raises(NotWritable, match="without --candidate"):
        repository.check_beside("shades")


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"version": "1", "manifest_sha256": "", "share": 2}', b"\xff", b"[" * 10_000]
)
def test_a_file_that_is_none_is_named(shades: Repository, text: bytes) -> None:
    (shades.root / "shades/CANDIDATE").write_bytes(text)
    with pytest.raises(CandidateInvalid, match="CANDIDATE: "):
        shades.candidate("shades")


def test_a_damaged_file_is_removed_by_stopping(
    shades: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shades.root / "shades/CANDIDATE").write_text("{}")
    with pytest.raises(CandidateInvalid, match="--stop removes the file"):
        shades.candidate("shades")
    assert run(shades, "shades", "--stop", monkeypatch=monkeypatch) == 0
    assert "damaged" in capsys.readouterr().out
    assert shades.candidate("shades") is None


def test_a_candidate_that_became_current_is_never_tried_again(
    shades: Repository, versions: tuple[str, str]
) -> None:
    current, tried = versions
    file = shades.root / "shades/CANDIDATE"
    shades.set_candidate("shades", tried, 0.5)
    told = file.read_bytes()
    shades.rollback("shades", tried)
    assert not file.exists()
    # As a promotion leaves it that is killed before its end.
    file.write_bytes(told)
    assert shades.candidate("shades") is None
    shades.rollback("shades", current)
    assert shades.candidate("shades") is None
    assert not file.exists()


def test_a_key_is_always_answered_alike_and_still_with_a_larger_share() -> None:
    def candidate(share: float, version: str = "20261101.1") -> Candidate:
        return Candidate(version=version, manifest_sha256="0" * 64, share=share)

    keys = [f"user-{number}" for number in range(10_000)]
    tenth = {key for key in keys if candidate(0.1).answers("shades", key)}
    half = {key for key in keys if candidate(0.5).answers("shades", key)}
    assert len(tenth) == pytest.approx(1_000, abs=120)
    assert len(half) == pytest.approx(5_000, abs=200)
    assert tenth < half
    assert not any(candidate(0.0).answers("shades", key) for key in keys)
    assert all(candidate(1.0).answers("shades", key) for key in keys)
    # Not always the same users come first.
    assert tenth != {key for key in keys if candidate(0.1, "20261101.2").answers("shades", key)}
