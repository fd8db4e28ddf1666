"""The zip file of a TorchScript file: what torch could read otherwise than Python does is refused."""

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.errors import ArchiveInvalid, BundleError
from models.torchscript_archive import MOST_ENTRIES, MOST_READ_BYTES, MOST_SOURCE_BYTES, read_archive
from models.torchscript_scan import check_operators
from tests.archives import BODY, CODE, Entries, entries_of, plain, saved, zipped

ONES = torch.ones(4)
# Other code for the same class: whoever reads it sees what nobody looked at.
OTHER = plain()[CODE].replace(BODY.encode(), b"    return torch.add(x, 41)\n")
# The end of the central directory, where a zip file has no comment.
END_BYTES = 22


def answers_of(content: bytes) -> list[float]:
    answers: list[float] = torch.jit.load(io.BytesIO(content))(ONES).tolist()
    return answers


def test_what_torch_writes_is_read_whole() -> None:
    archive = read_archive(saved(nn.Sequential(nn.Linear(4, 4), nn.ReLU())))
    assert set(archive.pickles) == {"data.pkl", "constants.pkl"}
    assert all(path.startswith("code/__torch__") for path in archive.sources)
    assert any(b"torch.linear(" in source for source in archive.sources.values())


@pytest.mark.parametrize(
    "name", [CODE, CODE.replace("__torch__", "__TORCH__"), CODE.replace("archive/", "ARCHIVE/"), CODE.upper()]
)
def test_code_that_is_there_twice_is_refused(name: str) -> None:
    first, *rest = plain().items()
    for entries in ([first, *rest, (name, OTHER)], [first, (name, OTHER), *rest]):
        assert answers_of(zipped(entries)) in ([1.0] * 4, [42.0] * 4)
        with pytest.raises(ArchiveInvalid, match=r"is there twice|is not in the folder"):
            read_archive(zipped(entries))


def test_torch_does_take_the_other_one() -> None:
    """So the rule above is worth its while."""
    other = (CODE.replace("__torch__", "__TORCH__"), OTHER)
    # Its search halves what is sorted: which of the two it meets hangs on how many there are.
    fillers = [(f"archive/data/{index}", b"") for index in range(4)]
    contents = [zipped([*plain().items(), other, *fillers[:count]]) for count in range(5)]
    assert [42.0] * 4 in [answers_of(content) for content in contents]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("archive/../code/x.py", "leads elsewhere"),
        ("archive/code/./x.py", "leads elsewhere"),
        ("archive/code//x.py", "leads elsewhere"),
        ("archive/code\\x.py", "is not one that torch gives"),
        ("archive/data/", "leads elsewhere"),
        ("/etc/x.py", "leads elsewhere"),
        ("archive/data/0\0.py", "is not one that torch gives"),
        ("archive/code/x\n.py", "is not one that torch gives"),
        ("other/code/x.py", "is not in the folder 'archive'"),
        ("archive", "is not in the folder 'archive'"),
        ("archive/code/x.pyc", "does not belong"),
        ("archive/code/x", "does not belong"),
        ("archive/model.json", "does not belong"),
        ("archive/bytecode.pkl", "does not belong"),
        ("archive/.data/ts_code/code/x.py", "does not belong"),
        ("archive/tensors.pkl", "does not belong"),
    ],
)
def test_an_entry_that_does_not_belong_is_refused(name: str, reason: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # As it is: the constructor would cut it at a zero byte.
    content = zipped([*plain().items()])
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, b"")
    with pytest.raises(ArchiveInvalid, match=reason):
        read_archive(buffer.getvalue())


def test_what_goes_with_a_model_is_taken_and_not_read() -> None:
    beside = [("archive/extra/notes.txt", b"\xff" * 100), ("archive/data/9", b"\0" * 64)]
    content = zipped([*plain().items(), *beside])
    assert set(read_archive(content).sources) == {CODE.removeprefix("archive/")}


def test_no_zip_file_is_refused() -> None:
    whole = saved(nn.ReLU())
    for content in (b"", b"no archive", b"PK\x03\x04", whole[:-1], whole + b"\0", whole[:-2] + b"\1\0"):
        with pytest.raises(ArchiveInvalid):
            read_archive(content)


def in_first_header() -> bytes:
    content = bytearray(zipped(plain().items()))
    content[4:8] = b"PTMF"
    return bytes(content)


def in_first_header_and_directory() -> bytes:
    return in_directory(in_first_header(), next(iter(plain())), 8, b"MF")


def before_first_header() -> bytes:
    buffer = io.BytesIO()
    buffer.write(b"PK\x03\x04PTMF")
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in plain().items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [in_first_header, in_first_header_and_directory, before_first_header])
def test_what_torch_takes_for_its_other_format_is_refused(make: Callable[[], bytes]) -> None:
    content = make()
    with pytest.raises(RuntimeError, match="Flatbuffer"):
        torch.jit.load(io.BytesIO(content))
    with pytest.raises(ArchiveInvalid, match=r"has a header that is not as its|stands before its first entry"):
        read_archive(content)


def local_headers(content: bytes) -> list[int]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [info.header_offset for info in archive.infolist()]


@pytest.mark.parametrize(("field", "bits"), [(6, 8), (8, 8), (30, 1)], ids=["flags", "method", "name"])
def test_a_header_that_the_directory_contradicts_is_refused(field: int, bits: int) -> None:
    content = bytearray(zipped(plain().items()))
    content[local_headers(bytes(content))[-1] + field] ^= bits
    with pytest.raises(ArchiveInvalid, match="has a header that is not as its directory says"):
        read_archive(bytes(content))


def in_directory(content: bytes, name: str, field: int, value: bytes) -> bytes:
    """Replace a field of an entry in the central directory."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start, names = archive.start_dir, archive.namelist()
    for _ in names[: names.index(name)]:
        start = content.index(b"PK\x01\x02", start + 1)
    return content[: start + field] + value + content[start + field + len(value) :]


def test_entries_that_share_bytes_are_refused() -> None:
    content = zipped([*plain().items(), ("archive/data/8", b"\0" * 64), ("archive/data/9", b"\0" * 64)])
    first = local_headers(content)[-2]
    shared = in_directory(content, "archive/data/9", 42, struct.pack("<L", first))
    with pytest.raises(ArchiveInvalid, match=r"shares its bytes|is damaged"):
        read_archive(shared)


def test_an_entry_that_reaches_into_the_directory_is_refused() -> None:
    content = zipped([*plain().items(), ("archive/data/9", b"\0" * 64)])
    longer = in_directory(content, "archive/data/9", 20, struct.pack("<2L", 128, 128))
    with pytest.raises(ArchiveInvalid, match=r"cut short|is damaged"):
        read_archive(longer)


def with_end(content: bytes, change: Callable[[list[int]], None]) -> bytes:
    """Change the numbers at the end: entries here, entries in all, bytes of the directory, its place."""
    end = struct.Struct("<2H2L")
    numbers = list(end.unpack_from(content, len(content) - END_BYTES + 8))
    change(numbers)
    return content[: len(content) - END_BYTES + 8] + end.pack(*numbers) + content[-2:]


def fewer(numbers: list[int]) -> None:
    numbers[1] -= 1


def later(numbers: list[int]) -> None:
    numbers[3] += 4


def shorter(numbers: list[int]) -> None:
    numbers[2] -= 46


@pytest.mark.parametrize("change", [fewer, later, shorter])
def test_an_end_that_does_not_fit_the_directory_is_refused(change: Callable[[list[int]], None]) -> None:
    with pytest.raises(ArchiveInvalid, match="its directory is ambiguous"):
        read_archive(with_end(zipped(plain().items()), change))


def test_a_second_archive_before_or_behind_is_refused() -> None:
    one, other = zipped(plain().items()), zipped((plain() | {CODE: OTHER}).items())
    for content in (one + other, b"PK\x03\x04" + one):
        with pytest.raises(ArchiveInvalid):
            read_archive(content)


def test_an_end_of_large_files_that_leads_elsewhere_is_refused() -> None:
    """Python takes what stands before it for the end; torch what it points to."""
    content = zipped(plain().items())
    end = content[-END_BYTES:]
    entries, size, offset = struct.unpack_from("<H2L", end, 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, offset)
    place = len(content) - END_BYTES
    for pointed, whole in ((place, True), (0, False), (place + 1, False)):
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, pointed, 1)
        large = content[:-END_BYTES] + record + locator + end
        if whole:
            assert read_archive(large) == read_archive(content)
        else:
            with pytest.raises(ArchiveInvalid, match="its end is ambiguous"):
                read_archive(large)


def test_a_bomb_is_refused_unopened() -> None:
    bombs: list[Entries] = [
        {CODE: b"#" * (MOST_SOURCE_BYTES + 1)},
        {"archive/data.pkl": b"\0" * (MOST_READ_BYTES + 1)},
        {f"{CODE}.debug_pkl": b"\0" * (MOST_READ_BYTES + 1)},
        {"archive/data/0": b"\0" * 10_000},
    ]
    for bomb in bombs:
        content = zipped((plain() | bomb).items(), zipfile.ZIP_DEFLATED)
        tracemalloc.start()
        with pytest.raises(ArchiveInvalid, match=r"bytes|is packed"):
            read_archive(content)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 1024**2


def test_an_entry_that_unpacks_to_more_than_it_says_is_refused() -> None:
    content = zipped((plain() | {CODE: b"x = 1\n" * 10_000}).items(), zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveInvalid, match="is damaged"):
        read_archive(in_directory(content, CODE, 24, struct.pack("<L", 6)))


def test_too_many_entries_are_refused_before_they_are_listed() -> None:
    def many(numbers: list[int]) -> None:
        numbers[0] = numbers[1] = 0

    with pytest.raises(ArchiveInvalid, match=f"0 entries; at most {MOST_ENTRIES}"):
        read_archive(with_end(zipped(plain().items()), many))


def test_tensors_are_not_copied() -> None:
    content = saved(nn.Linear(2048, 2048))
    assert len(content) > 16 * 1024**2
    tracemalloc.start()
    check_operators(content)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1024**2


def test_whatever_is_damaged_is_refused_or_harmless() -> None:
    chance = random.Random(0)  # noqa: S311 (no secret is made of it)
    whole = saved(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert entries_of(whole)
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            # Most of what is read lies at the end.
            place = len(content) - 1 - min(int(chance.expovariate(1 / 600)), len(content) - 1)
            content[place] = chance.randrange(256)
        try:
            check_operators(bytes(content))
        except BundleError:
            continue
