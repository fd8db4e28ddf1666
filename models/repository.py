"""The model repository: names, their versions, and which version is current.

    <root>/defaults.json               kind of input -> name
    <root>/<name>/CURRENT              "<version> <sha256 of its manifest>"
    <root>/<name>/CANDIDATE            a version that answers a share of the requests, as JSON
    <root>/<name>/UNLOADED             there while the model is not to be served
    <root>/<name>/<version>/           a bundle, immutable once renamed into place
    <root>/<name>/.staging-<uuid>/     a bundle in the making
    <root>/<name>/.publishing.lock     held by whoever publishes, for as long as that takes
    <root>/<name>/.lock                held by whoever changes one of these files, as long as verifying takes

A reader never locks: it reads CURRENT, which is replaced whole. Whatever instant a publisher dies at,
CURRENT names a whole version: the new one is renamed into place, synced, before CURRENT is replaced.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from models.bundle import Bundle, read_manifest
from models.candidate import CANDIDATE_NAME, Candidate
from models.current import CURRENT_NAME, Current
from models.errors import (
    CandidateInvalid,
    CurrentInvalid,
    ManifestInvalid,
    ModelNotFound,
    ModelsError,
    NotWritable,
    RepositoryError,
    VersionNotFound,
)
from models.lock import locked
from models.manifest import ModelName, Task
from models.plain_file import open_mark, read_plain
from models.public_keys import PublicKeys
from models.signature import SIGNATURE_NAME, check_signature
from models.signing_key import SigningKey
from models.staging import Staging, sweep
from models.standing import Change, Standing
from models.versions import VersionName, first_version_after, version_order
from models.whole_file import sync, whole_file

InputKind = Literal["image", "text"]

DEFAULT_ROOT = Path("models/artifacts")
UNLOADED_NAME = "UNLOADED"
LOCK_NAME = ".lock"
PUBLISHING_LOCK_NAME = ".publishing.lock"
MODELS_DIR_VARIABLE = "LANTERN_MODELS_DIR"

_name = TypeAdapter(ModelName)
_version = TypeAdapter(VersionName)
_defaults = TypeAdapter(dict[InputKind, ModelName])


def default_root() -> Path:
    """Where models are published and served from, unless said otherwise: LANTERN_MODELS_DIR or the default."""
    return Path(os.environ.get(MODELS_DIR_VARIABLE) or DEFAULT_ROOT)


class Repository:
    """Bundles on disk.

    Args:
        root: Below it.
        patience_s: How long to wait for another publisher of a name; None: as long as that takes.
        trusted: Gives the keys of which one must have signed a version, each time that one is verified; None:
            nobody need have.
    """

    def __init__(
        self,
        root: Path,
        patience_s: float | None = None,
        trusted: Callable[[], PublicKeys] | None = None,
    ) -> None:
        self.root = root
        self._patience_s = patience_s
        self._trusted = trusted

    def names(self) -> list[str]:
        """The names that have a current version, or may have one that cannot be seen; sorted.

        Raises:
            RepositoryError: The directory cannot be read.
        """
        try:
            entries = list(self.root.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RepositoryError(f"{self.root} cannot be read: {error.strerror}") from error
        return sorted(entry.name for entry in entries if _matches(_name, entry.name) and _may_hold_current(entry))

    def versions(self, name: str) -> list[str]:
        """The versions of a name, oldest first; whole or not."""
        try:
            entries = list(self._directory(name).iterdir())
        except OSError:
            return []
        return sorted((entry.name for entry in entries if _matches(_version, entry.name)), key=version_order)

    def current(self, name: str) -> Current:
        """Read which version is current.

        Raises:
            ModelNotFound: Nothing of that name is published.
            CurrentInvalid: CURRENT is not what a publisher writes.
        """
        try:
            text = read_plain(self._directory(name) / CURRENT_NAME)
        except FileNotFoundError:
            raise ModelNotFound(f"no model {name!r} is published in {self.root}") from None
        except OSError as error:
            raise CurrentInvalid(f"{name}/{CURRENT_NAME} cannot be read: {error}") from error
        return Current.parse(name, text)

    def open(self, name: str, version: str | Current | None = None) -> Bundle:
        """Verify and return a version, the current one if none is named.

        A `Current` also pins the manifest.

        Raises:
            ModelNotFound, CurrentInvalid: As `current`.
            VersionNotFound: That version is not there.
            KeyFileInvalid: There are no keys to verify it by.
            BundleError: The version must not be loaded, with the reason.
        """
        pinned = self.current(name) if version is None else version
        wanted, manifest_sha256 = (
            (pinned, None) if isinstance(pinned, str) else (pinned.version, pinned.manifest_sha256)
        )
        directory = self._directory(name) / wanted
        if not _matches(_version, wanted) or not _is_directory(directory):
            raise VersionNotFound(f"{name} has no version {wanted!r}; it has {self.versions(name)}")
        bundle = Bundle.open(directory, manifest_sha256, self._keys())
        if (bundle.manifest.name, bundle.manifest.version) != (name, wanted):
            raise CurrentInvalid(f"{name}/{wanted} says it is {bundle.manifest.name}/{bundle.manifest.version}")
        return bundle

    def is_signed(self, name: str, version: str) -> bool:
        """Whether a version has the signature that it must have; nothing else of it is read."""
        directory = self._directory(name) / version
        try:
            trusted = self._keys()
            if trusted is not None:
                check_signature(directory, read_manifest(directory), trusted)
        except ModelsError:
            return False
        return True

    def sign(self, name: str, key: SigningKey, version: str | None = None) -> Bundle:
        """Verify a version, the current one if none is named, and sign it; a signature of before is replaced.

        Raises:
            ModelNotFound, CurrentInvalid, VersionNotFound, BundleError: As `open`; nothing is signed.
            OSError: The signature cannot be written.
        """
        self._check_there(name)
        with self._changing(name):
            bundle = self.open(name, version)
            text = read_manifest(bundle.directory)
            if hashlib.sha256(text).hexdigest() != bundle.manifest_sha256:
                raise ManifestInvalid(f"{name}/{bundle.manifest.version} was changed while it was to be signed")
            # Not beside it: whoever verifies the version meanwhile would find a file that is not listed.
            with whole_file(bundle.directory / SIGNATURE_NAME, self._directory(name)) as stream:
                stream.write(key.sign(text))
        return bundle

    def check_version_there(self, name: str, version: str) -> None:
        """Look whether a version's directory is there, and at nothing in it.

        Raises:
            VersionNotFound: It is not, or cannot be seen.
        """
        if not _is_there(self._directory(name) / version):
            raise VersionNotFound(f"{name} has no version {version!r} any more")

    @contextmanager
    def staging(self, name: str, now: datetime | None = None) -> Iterator[Staging]:
        """Lend a fresh directory in which to build the next version, and sweep it away afterwards.

        One publisher of a name at a time: a second waits here. What a killed publisher left is removed.

        Raises:
            RepositoryError: The name is not a model name.
            NotWritable: The directory cannot be made or written.
        """
        directory = self._directory(name)
        self.check_writable(name)
        # Not that of other changes: to roll back, or to try no more, must not wait for a training's checks.
        with locked(directory / PUBLISHING_LOCK_NAME, self._patience_s):
            with self._changing(name):
                sweep(directory)
            version = first_version_after(self.versions(name), now or datetime.now(UTC))
            staging = Staging.make(directory, version)
            try:
                yield staging
            finally:
                staging.remove()

    def publish(self, name: str, staging: Staging, *, current: bool = True) -> Bundle:
        """Make a staged bundle a version, and the current one if not told otherwise; call it inside `staging`.

        Raises:
            BundleError: What was staged is not a whole bundle; nothing is published.
        """
        directory = self._directory(name)
        staged = Bundle.open(staging.directory, trusted=self._keys())
        if (staged.manifest.name, staged.manifest.version) != (name, staging.version):
            raise RepositoryError(f"the manifest must say {name}/{staging.version}, as it was staged")
        staging.sync()
        published = directory / staging.version
        with self._changing(name):
            # Never onto an existing directory: nobody else publishes and the version is fresh, and rename
            # itself refuses a directory that holds anything.
            staging.directory.rename(published)
            sync(directory)
            if current:
                self._set_current(name, Current(staging.version, staged.manifest_sha256))
        return Bundle(published, staged.manifest, staged.manifest_sha256)

    def rollback(self, name: str, version: str) -> Change:
        """Make an older version current again, after verifying it whole.

        Raises:
            ModelNotFound: Nothing of that name is published.
            VersionNotFound: That version is not there.
            BundleError: It must not be loaded, with the reason; CURRENT stays as it is.
        """
        self._check_there(name)
        with self._changing(name):
            before = self.standing(name)
            bundle = self.open(name, version)
            self._set_current(name, Current(version, bundle.manifest_sha256))
            return Change(version, before, self.standing(name))

    def candidate(self, name: str) -> Candidate | None:
        """Read which version is tried, if one is; one that has become current is tried no more.

        Raises:
            CandidateInvalid: CANDIDATE is not what `set_candidate` writes.
        """
        candidate = self._read_candidate(name)
        return None if candidate is None or self._is_current(name, candidate) else candidate

    def _read_candidate(self, name: str) -> Candidate | None:
        try:
            text = read_plain(self._directory(name) / CANDIDATE_NAME)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CandidateInvalid(f"{name}/{CANDIDATE_NAME} cannot be read: {error.strerror}") from error
        return Candidate.parse(name, text)

    def set_candidate(self, name: str, version: str, share: float, shadow: float = 0.0) -> Change:
        """Have a version tried, after verifying it whole.

        Args:
            name: The model's.
            version: Which.
            share: Of the requests, which it answers.
            shadow: Of the requests, which it is asked too.

        Raises:
            ModelNotFound, CurrentInvalid: Nothing of that name is current.
            CandidateInvalid: That version is current already.
            VersionNotFound: It is not there.
            BundleError: It must not be loaded, with the reason.
        """
        self._check_there(name)
        with self._changing(name):
            if self.current(name).version == version:
                raise CandidateInvalid(f"{name} {version} is the current version; try another beside it")
            bundle = self.open(name, version)
            candidate = Candidate(
                version=version, manifest_sha256=bundle.manifest_sha256, share=share, shadow=shadow
            )
            before = self.standing(name)
            self._write_candidate(name, candidate)
            return Change(version, before, self.standing(name))

    def promote(self, name: str) -> Change:
        """Make the version that is tried the current one.

        Raises:
            CandidateInvalid: None is tried.
            BundleError: It must not be loaded any more, with the reason; nothing is changed.
        """
        self._check_there(name)
        with self._changing(name):
            candidate = self.candidate(name)
            if candidate is None:
                raise CandidateInvalid(f"no version of {name} is tried")
            before = self.standing(name)
            current = Current(candidate.version, candidate.manifest_sha256)
            self.open(name, current)
            self._set_current(name, current)
            return Change(candidate.version, before, self.standing(name))

    def drop_candidate(self, name: str) -> str | None:
        """Try the version no more that is tried; return it, or None if its file is damaged and does not say.

        Raises:
            CandidateInvalid: None is tried.
        """
        self._check_there(name)
        with self._changing(name):
            try:
                candidate = self._read_candidate(name)
            except CandidateInvalid:
                self._remove_candidate(name)
                return None
            if candidate is None:
                raise CandidateInvalid(f"no version of {name} is tried")
            self._remove_candidate(name)
        return candidate.version

    def standing(self, name: str) -> Standing | None:
        """Read what a name's files say; None where they do not say what is current."""
        try:
            current = self.current(name)
        except RepositoryError:
            return None
        try:
            return Standing(current, self.candidate(name))
        except CandidateInvalid:
            return Standing(current, None)

    def take_back(self, name: str, change: Change) -> bool:
        """Have the files say what they said before a change; return whether they do.

        They do not if somebody else has changed them since, nor if they said nothing whole before.

        Raises:
            ModelsError: What was current before must not be loaded any more; nothing is changed.
        """
        with self._changing(name):
            before, after = change.before, change.after
            if before is None or after is None or self.standing(name) != after:
                return False
            if before.current != after.current:
                self.open(name, before.current)
                self._set_current(name, before.current)
            if before.candidate is not None:
                self._write_candidate(name, before.candidate)
            elif after.candidate is not None:
                self._remove_candidate(name)
        return True

    def unloaded(self, names: Iterable[str], before: Collection[str] = ()) -> set[str]:
        """Return which names are not to be served, though they are published.

        Args:
            names: To look for.
            before: Were not to be served; one of them whose directory has gone with all that it says stays so.
        """
        return {name for name in names if self._is_unloaded(name) or (name in before and self._has_gone(name))}

    def unload(self, name: str) -> None:
        """Have a name served no more, by whichever service looks, until it is loaded again.

        Raises:
            ModelNotFound, CurrentInvalid: Nothing of that name is current.
        """
        self.current(name)
        os.close(open_mark(self._directory(name) / UNLOADED_NAME))
        sync(self._directory(name))

    def load(self, name: str) -> None:
        """Have a name served again.

        Raises:
            ModelNotFound, CurrentInvalid: Nothing of that name is current.
        """
        self.current(name)
        if self._is_unloaded(name):
            (self._directory(name) / UNLOADED_NAME).unlink(missing_ok=True)
            sync(self._directory(name))

    def check_writable(self, name: str) -> None:
        """Try, before hours of training, whether this name can be published here.

        Raises:
            NotWritable: It cannot, with the system's reason.
        """
        directory = self._directory(name)
        probe = directory / f".probe-{uuid.uuid4().hex}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            sync(self.root)
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)
            for lock in (LOCK_NAME, PUBLISHING_LOCK_NAME):
                os.close(open_mark(directory / lock))
        except OSError as error:
            raise NotWritable(f"cannot publish to {directory}: {error.strerror}") from error

    def check_task(self, name: str, task: Task) -> None:
        """Refuse to put a model in the place of one of another task: whoever asks by name relies on it.

        Raises:
            NotWritable: What is current under this name does another task.
        """
        try:
            current = self.open(name).manifest.task
        except ModelsError:  # None, or none that could serve.
            return
        if current != task:
            raise NotWritable(
                f"{name} in {self.root} does {current}, and this model {task}; publish it under another --name"
            )

    def check_beside(self, name: str) -> None:
        """Refuse a version that is to be tried where none is current.

        Raises:
            NotWritable: None is.
        """
        try:
            self.current(name)
        except RepositoryError as error:
            raise NotWritable(f"{error}: nothing can be tried beside it; publish without --candidate") from None

    def defaults(self) -> dict[InputKind, str]:
        """The default model for each kind of input; empty without the file.

        Raises:
            CurrentInvalid: The file is not such a table.
        """
        return self.stated_defaults() or {}

    def stated_defaults(self) -> dict[InputKind, str] | None:
        """The same as defaults.json says; None without the file, which may have vanished with all else.

        Raises:
            CurrentInvalid: The file is not such a table.
        """
        file = self.root / "defaults.json"
        try:
            return _defaults.validate_json(read_plain(file))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise CurrentInvalid(f"{file} is not a table of kind of input to model name") from error

    def set_default(self, kind: InputKind, name: str) -> None:
        """Make a name the default for a kind of input."""
        with locked(self.root / LOCK_NAME, self._patience_s):
            table = json.dumps(self.defaults() | {kind: name}, indent=2)
            with whole_file(self.root / "defaults.json") as stream:
                stream.write(f"{table}\n".encode())

    def _keys(self) -> PublicKeys | None:
        return None if self._trusted is None else self._trusted()

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Be the only one who changes the files of a name."""
        with locked(self._directory(name) / LOCK_NAME, self._patience_s):
            yield

    def _check_there(self, name: str) -> None:
        if not _is_directory(self._directory(name)):
            raise ModelNotFound(f"no model {name!r} is published in {self.root}")

    def _is_unloaded(self, name: str) -> bool:
        return _is_there(self._directory(name) / UNLOADED_NAME)

    def _has_gone(self, name: str) -> bool:
        return not _may_hold_current(self._directory(name))

    def _write_candidate(self, name: str, candidate: Candidate) -> None:
        with whole_file(self._directory(name) / CANDIDATE_NAME) as stream:
            stream.write(candidate.model_dump_json().encode() + b"\n")

    def _remove_candidate(self, name: str) -> None:
        (self._directory(name) / CANDIDATE_NAME).unlink()
        sync(self._directory(name))

    def _is_current(self, name: str, candidate: Candidate) -> bool:
        try:
            return self.current(name).version == candidate.version
        except RepositoryError:
            return False

    def _set_current(self, name: str, current: Current) -> None:
        # Before too: whoever made the candidate current may have been killed, and it is not to be tried again.
        self._forget_current_candidate(name)
        with whole_file(self._directory(name) / CURRENT_NAME) as stream:
            stream.write(current.to_text())
        self._forget_current_candidate(name)

    def _forget_current_candidate(self, name: str) -> None:
        try:
            candidate = self._read_candidate(name)
        except CandidateInvalid:  # The service tells of it, and --stop removes it.
            return
        if candidate is not None and self._is_current(name, candidate):
            self._remove_candidate(name)

    def _directory(self, name: str) -> Path:
        if not _matches(_name, name):
            raise ModelNotFound(f"{name!r} is not a model name: lower-case letters, digits, - and _")
        return self.root / name


def _matches(adapter: TypeAdapter[str], text: str) -> bool:
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:
        return False


def _is_directory(file: Path) -> bool:
    # One that may not be looked at raises.
    try:
        return file.is_dir()
    except OSError:
        return False


def _may_hold_current(directory: Path) -> bool:
    try:
        return (directory / CURRENT_NAME).exists()
    except OSError:  # Not ours to read: whoever asks for it is told so.
        return True
