import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.errors import (
    CurrentInvalid,
    FileCorrupt,
    ManifestInvalid,
    ModelNotFound,
    NotWritable,
    RepositoryError,
    VersionNotFound,
)
from models.repository import Repository
from tests.bundles import Shades, publish, stage


def test_a_published_version_is_current_and_whole(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    assert repository.names() == ["shades"]
    assert repository.current("shades").version == bundle.manifest.version
    assert repository.open("shades") == bundle
    assert [path.name for path in (repository.root / "shades").glob(".staging-*")] == []


def test_a_directory_that_cannot_be_read_is_named_and_hides_no_other(
    shades: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_exists = Path.exists

    def exists(self: Path, **_: object) -> bool:
        if self.parent.name == "private":
            raise PermissionError(13, "Permission denied")
        return real_exists(self)

    (shades.root / "private").mkdir()
    monkeypatch.setattr(Path, "exists", exists)
    assert shades.names() == ["private", "shades"]


def test_a_repository_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RepositoryError, match="cannot be read"):
        Repository(tmp_path / "file").names()


def test_each_publication_is_a_new_version_and_the_old_ones_stay(repository: Repository) -> None:
    first, second = publish(repository, "shades"), publish(repository, "shades")
    assert repository.versions("shades") == [first.manifest.version, second.manifest.version]
    assert repository.open("shades") == second
    assert repository.open("shades", first.manifest.version) == first


def test_an_empty_or_absent_repository_has_no_names(repository: Repository) -> None:
    assert repository.names() == []
    assert repository.versions("shades") == []
    with pytest.raises(ModelNotFound, match="shades"):
        repository.open("shades")


def test_an_unknown_version_is_refused_with_the_known_ones(shades: Repository) -> None:
    with pytest.raises(VersionNotFound, match=shades.versions("shades")[0]):
        shades.open("shades", "20000101.1")


@pytest.mark.parametrize("name", ["../other", "UPPER", "", ".", "a/b", "x" * 65, "-a", "a-"])
def test_a_name_that_is_no_model_name_never_becomes_a_path(repository: Repository, name: str) -> None:
    with pytest.raises(ModelNotFound):
        repository.open(name)
    with pytest.raises(ModelNotFound), repository.staging(name):
        pass


@pytest.mark.parametrize("version", ["..", "../other", "latest", "20261123.0"])
def test_a_version_that_is_no_version_never_becomes_a_path(shades: Repository, version: str) -> None:
    with pytest.raises(VersionNotFound):
        shades.open("shades", version)


def test_rollback_makes_an_older_version_current(repository: Repository) -> None:
    first, _ = publish(repository, "shades"), publish(repository, "shades")
    repository.rollback("shades", first.manifest.version)
    assert repository.open("shades") == first


def test_rollback_of_an_unknown_model_is_refused_as_such(repository: Repository) -> None:
    with pytest.raises(ModelNotFound, match="other"):
        repository.rollback("other", "20260101.1")


def test_rollback_to_a_corrupt_version_is_refused_and_changes_nothing(repository: Repository) -> None:
    first, second = publish(repository, "shades"), publish(repository, "shades")
    (first.directory / "model.ts.pt").write_bytes(b"")
    with pytest.raises(FileCorrupt):
        repository.rollback("shades", first.manifest.version)
    assert repository.open("shades") == second


def test_a_version_after_a_rollback_is_still_new(repository: Repository) -> None:
    first, second = publish(repository, "shades"), publish(repository, "shades")
    repository.rollback("shades", first.manifest.version)
    third = publish(repository, "shades")
    assert third.manifest.version not in (first.manifest.version, second.manifest.version)


@pytest.mark.parametrize("text", ["", "20261123.1", "latest " + "0" * 64, "20261123.1 xyz", "\0\0", "a b c"])
def test_a_damaged_current_is_refused_by_name(shades: Repository, text: str) -> None:
    (shades.root / "shades/CURRENT").write_text(text)
    with pytest.raises(CurrentInvalid, match="shades/CURRENT"):
        shades.open("shades")


def test_an_unreadable_current_is_refused_by_name(shades: Repository) -> None:
    (shades.root / "shades/CURRENT").write_bytes(b"\xff\xfe")
    with pytest.raises(CurrentInvalid, match="cannot be read"):
        shades.current("shades")


def test_current_pins_the_manifest(shades: Repository) -> None:
    version = shades.current("shades").version
    file = shades.root / "shades" / version / "manifest.json"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ManifestInvalid, match="not the one that was published"):
        shades.open("shades")


def test_a_bundle_moved_to_another_name_is_refused(shades: Repository) -> None:
    (shades.root / "shades").rename(shades.root / "other")
    with pytest.raises(CurrentInvalid, match="says it is shades"):
        shades.open("other")


def test_an_incomplete_staging_publishes_nothing(repository: Repository) -> None:
    with pytest.raises(ManifestInvalid), repository.staging("shades") as staging:
        (staging.directory / "model.ts.pt").write_bytes(b"x")
        repository.publish("shades", staging)
    assert repository.names() == []
    assert repository.versions("shades") == []


def test_a_manifest_that_names_another_model_is_not_published(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match="must say shades"), repository.staging("shades") as staging:
        stage(staging, "other", Shades())
        repository.publish("shades", staging)
    assert repository.names() == []


def test_what_a_killed_publisher_left_is_swept_away_by_the_next(repository: Repository) -> None:
    left = repository.root / "shades/.staging-dead"
    left.mkdir(parents=True)
    (left / "model.ts.pt").write_bytes(b"half")
    publish(repository, "shades")
    assert not left.exists()


def test_a_staging_that_fails_is_swept_away_at_once(repository: Repository) -> None:
    with pytest.raises(ZeroDivisionError), repository.staging("shades") as staging:
        raise ZeroDivisionError
    assert not staging.directory.exists()


def test_two_publishers_take_turns_and_both_are_kept(repository: Repository) -> None:
    threads = [threading.Thread(target=publish, args=(repository, "shades")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(repository.versions("shades")) == 4
    assert repository.current("shades").version == repository.versions("shades")[-1]
    repository.open("shades")


def test_a_staged_version_is_named_for_its_day(repository: Repository) -> None:
    with repository.staging("shades", datetime(2026, 1, 2, tzinfo=UTC)) as staging:
        assert staging.version == "20260102.1"


def test_a_directory_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotWritable, match="cannot publish to"):
        Repository(tmp_path / "file").check_writable("shades")


def test_checking_leaves_nothing_behind(repository: Repository) -> None:
    repository.check_writable("shades")
    left = sorted(path.name for path in (repository.root / "shades").iterdir())
    assert left == [".lock", ".publishing.lock"]
    assert repository.names() == []


def test_a_version_that_may_not_be_looked_at_is_refused_by_name(
    shades: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path) -> bool:
        raise PermissionError(directory)

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(VersionNotFound, match="shades has no version"):
        shades.open("shades")


def test_defaults_are_kept_by_kind(shades: Repository) -> None:
    assert shades.defaults() == {}
    assert shades.stated_defaults() is None
    shades.set_default("image", "shades")
    shades.set_default("text", "reviews")
    shades.set_default("image", "other")
    assert shades.defaults() == {"image": "other", "text": "reviews"}


@pytest.mark.parametrize("text", ["", "[]", '{"sound": "x"}', '{"image": "Not A Name"}'])
def test_damaged_defaults_are_refused_by_name(shades: Repository, text: str) -> None:
    (shades.root / "defaults.json").write_text(text)
    with pytest.raises(CurrentInvalid, match=r"defaults\.json"):
        shades.defaults()


def test_strangers_in_the_repository_are_no_models(shades: Repository) -> None:
    (shades.root / "notes.txt").write_text("x")
    (shades.root / "lost+found").mkdir()
    (shades.root / "empty").mkdir()
    (shades.root / "shades/README").write_text("x")
    assert shades.names() == ["shades"]
    assert len(shades.versions("shades")) == 1


def test_files_are_synced_before_the_rename_and_the_rename_before_current(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    real_fsync, real_rename, real_replace = os.fsync, Path.rename, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        steps.append(("rename", str(target)))
        return real_rename(self, target)

    def replace(self: Path, target: Path) -> Path:
        steps.append(("replace", str(target)))
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", replace)
    bundle = publish(repository, "shades")

    model = repository.root.resolve() / "shades"
    renamed = steps.index(("rename", str(bundle.directory)))
    replaced = steps.index(("replace", str(repository.root / "shades/CURRENT")))
    synced_before_rename = {Path(path).name for what, path in steps[:renamed] if what == "sync"}
    assert {*map(os.path.basename, bundle.manifest.files), "manifest.json", "golden"} <= synced_before_rename
    assert ("sync", str(model)) in steps[renamed:replaced]
    assert any(what == "sync" and ".CURRENT" in path for what, path in steps[renamed:replaced])
    assert ("sync", str(model)) in steps[replaced:]
