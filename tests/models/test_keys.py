"""Files of keys: made for their owner only, never written over, and told apart when they are mixed up."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from models.errors import KeyFileInvalid
from models.public_keys import PublicKeys
from models.signing_key import SigningKey, default_signing_key, public_file

CONTENT = b"what is signed"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a private key is, and its public one beside it."""
    SigningKey.make().write(tmp_path / "signing.key")
    return tmp_path / "signing.key"


def private_pem(key: PrivateKeyTypes, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


ED448, CURVE = ed448.Ed448PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
ENCRYPTED = private_pem(ed25519.Ed25519PrivateKey.generate(), b"a password")
OF_ED448, OF_CURVE = (
    key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in (ED448, CURVE)
)
GOOD = SigningKey.make().public.to_pem()


def test_what_the_private_key_signs_the_public_one_beside_it_verifies(file: Path) -> None:
    key, trusted = SigningKey.read(file), PublicKeys.read(public_file(file))
    assert public_file(file).name == "signing.key.pub"
    assert trusted.verify(key.sign(CONTENT), CONTENT)
    assert not trusted.verify(key.sign(CONTENT), CONTENT + b"x")
    assert not trusted.verify(SigningKey.make().sign(CONTENT), CONTENT)


def test_the_private_key_is_its_owners_alone_and_in_the_usual_form(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    key = load_pem_private_key(file.read_bytes(), password=None)
    assert file.read_bytes() == private_pem(key)
    assert public_file(file).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")


@pytest.mark.parametrize("there", ["signing.key", "signing.key.pub"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_file_that_is_there_is_never_written_over(tmp_path: Path, there: str, dangling: bool) -> None:
    taken = tmp_path / there
    if dangling:
        taken.symlink_to(tmp_path / "nowhere")
    else:
        taken.write_text("precious")
    with pytest.raises(KeyFileInvalid, match=f"{there} is there already"):
        SigningKey.make().write(tmp_path / "signing.key")
    assert [each.name for each in tmp_path.iterdir()] == [there]
    assert dangling or taken.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match="cannot be written: No such file or directory"):
        SigningKey.make().write(tmp_path / "nowhere/signing.key")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o666])
def test_a_private_key_that_others_may_touch_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(KeyFileInvalid, match=r"by others than its owner: chmod 600 .*signing\.key"):
        SigningKey.read(file)


def test_a_private_key_that_only_its_owner_reads_may_be_read_only(file: Path) -> None:
    file.chmod(0o400)
    SigningKey.read(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"no private key in PEM \(PKCS8\)"),
        (b"nonsense", r"no private key in PEM \(PKCS8\)"),
        (private_pem(CURVE).replace(b"PRIVATE", b"OPENSSH PRIVATE"), r"no private key in PEM \(PKCS8\)"),
        (private_pem(CURVE), "of another kind than Ed25519"),
        (private_pem(ED448), "of another kind than Ed25519"),
        (ENCRYPTED, "is encrypted, and nobody is asked for its password"),
        (GOOD, r"is a public key; the private one signs: the file without \.pub"),
        (b"x" * 100_000, "over 65536 bytes"),
    ],
)
def test_what_is_no_key_to_sign_with_is_told(file: Path, content: bytes, complaint: str) -> None:
    file.write_bytes(content)
    with pytest.raises(KeyFileInvalid, match=complaint):
        SigningKey.read(file)


def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    for read in (SigningKey.read, PublicKeys.read):
        with pytest.raises(KeyFileInvalid, match="cannot be read: No such file"):
            read(tmp_path / "nothing")
        with pytest.raises(KeyFileInvalid, match="cannot be read: Is a directory"):
            read(tmp_path)


def test_the_file_of_trusted_keys_holds_several_and_says_whose_they_are(tmp_path: Path) -> None:
    old, new, gone = SigningKey.make(), SigningKey.make(), SigningKey.make()
    commented_out = b"".join(b"  # " + line for line in gone.public.to_pem().splitlines(keepends=True))
    lines = b"# the old one\n" + old.public.to_pem() + commented_out + b"\n# the new one\r\n" + new.public.to_pem()
    (tmp_path / "trusted").write_bytes(lines)
    trusted = PublicKeys.read(tmp_path / "trusted")
    assert [trusted.verify(key.sign(CONTENT), CONTENT) for key in (old, new, gone)] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no public key; python -m training keygen writes one"),
        (b"# only a comment\n", "holds no public key"),
        (b"nonsense", "holds something that is no public key"),
        (GOOD + b"nonsense\n", "holds something that is no public key"),
        (GOOD + GOOD[:-10], "holds something that is no public key"),
        (b"#" + GOOD, "holds something that is no public key"),
        (GOOD + GOOD.replace(b"MCow", b"MCox"), "key 2 is damaged"),
        (GOOD + GOOD.replace(b"MCow", b"M"), "key 2 is damaged"),
        (GOOD + OF_CURVE, "key 2 is not of the kind Ed25519"),
        (OF_ED448, "key 1 is not of the kind Ed25519"),
        (GOOD + private_pem(ED448), "holds a private key"),
        (GOOD + ENCRYPTED, "holds a private key"),
        (GOOD + b"#" + private_pem(ED448), "holds a private key"),
        (GOOD.replace(b"PUBLIC KEY", b"CERTIFICATE"), "holds something that is no public key"),
        (GOOD * 1000, "over 65536 bytes"),
    ],
)
def test_what_is_no_file_of_trusted_keys_is_told(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "trusted"
    file.write_bytes(content)
    with pytest.raises(KeyFileInvalid, match=complaint) as refused:
        PublicKeys.read(file)
    secrets = [line for line in content.decode().splitlines() if len(line) > 20 and "-----" not in line]
    assert not any(line in str(refused.value) for line in secrets)


def test_the_environment_may_name_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("a.key", Path("a.key")), ("", None)):
        monkeypatch.setenv("LANTERN_SIGNING_KEY_FILE", value)
        assert default_signing_key() == expected
    monkeypatch.delenv("LANTERN_SIGNING_KEY_FILE")
    assert default_signing_key() is None
