"""The zip file that a TorchScript file is: read so that torch can find nothing else in it.

torch reads it with another library than Python's. Whatever the two could take differently is refused, and what
torch never writes.

Source: APPNOTE.TXT of PKWARE, 4.3.7 (local header), 4.3.14 to 4.3.16 (the end of the central directory).
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.errors import ArchiveInvalid

MOST_ENTRIES = 100_000
# Of all that torch reads besides tensors, unpacked, and of one file of code; of a large network all of it is under
# half a megabyte.
MOST_READ_BYTES = 32 * 1024**2
MOST_SOURCE_BYTES = 1024**2

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
END = struct.Struct("<4s4H2LH")
END_64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64 = struct.Struct("<4sLQL")
NAME_IS_UTF8, SIZES_FOLLOW = 0x800, 0x8

PICKLES = ("data.pkl", "constants.pkl", "traced_inputs.pkl")
NOTES = ("version", ".data/version", "byteorder", ".data/serialization_id")
TENSORS = ("data/", "constants/", "traced_inputs/")
# torch reads it only for who asks; nobody here does.
UNREAD = "extra/"


@dataclass(frozen=True)
class Archive:
    """What of a TorchScript file says what it does.

    Attributes:
        sources: Path below the archive's folder -> code.
        pickles: Likewise, of what the module is made of.
    """

    sources: Mapping[str, bytes]
    pickles: Mapping[str, bytes]


def read_archive(content: bytes) -> Archive:
    """Read a TorchScript file, but none of its tensors.

    Raises:
        ArchiveInvalid: It is no zip file, or not one as torch writes it.
    """
    entries, directory_offset = _end_of(content)
    # It shares the content's memory until somebody writes to it.
    with io.BytesIO(content) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                infos = archive.infolist()
                if (len(infos), archive.start_dir) != (entries, directory_offset):
                    raise ArchiveInvalid("its directory is ambiguous")
                paths = _paths(infos)
                _check_places(content, infos, directory_offset)
                return _read(archive, dict(zip(paths, infos, strict=True)))
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as error:
            raise ArchiveInvalid(f"it is damaged: {error}") from error


def _end_of(content: bytes) -> tuple[int, int]:
    """Return how many entries there are, and where their directory begins."""
    end_offset = len(content) - END.size
    if end_offset < 0:
        raise ArchiveInvalid("it is no zip file")
    signature, _, _, _, entries, size, offset, comment = END.unpack_from(content, end_offset)
    if signature != b"PK\x05\x06" or comment:
        raise ArchiveInvalid("it is cut short, or something follows its end")
    locator_offset = end_offset - LOCATOR_64.size
    if content[max(0, locator_offset) :][:4] == b"PK\x06\x07":
        end_offset = locator_offset - END_64.size
        if end_offset < 0 or LOCATOR_64.unpack_from(content, locator_offset)[2] != end_offset:
            raise ArchiveInvalid("its end is ambiguous")
        signature, *_, entries, size, offset = END_64.unpack_from(content, end_offset)
        if signature != b"PK\x06\x06":
            raise ArchiveInvalid("its end is ambiguous")
    if offset + size != end_offset:
        raise ArchiveInvalid("its directory is ambiguous")
    if not 0 < entries <= MOST_ENTRIES:
        raise ArchiveInvalid(f"it has {entries} entries; at most {MOST_ENTRIES} are taken")
    return entries, offset


def _paths(infos: Sequence[zipfile.ZipInfo]) -> Sequence[str]:
    """Return the entries' paths below the one folder in which they all are."""
    folder, _, _ = infos[0].filename.partition("/")
    seen: set[str] = set()
    paths = []
    for info in infos:
        name = info.filename
        if name != info.orig_filename or not name.isprintable() or "\\" in name:
            raise ArchiveInvalid(f"the name {info.orig_filename!r} is not one that torch gives")
        if {"", ".", ".."} & {*name.split("/")}:
            raise ArchiveInvalid(f"the name {name!r} leads elsewhere")
        if not name.startswith(f"{folder}/"):
            raise ArchiveInvalid(f"{name!r} is not in the folder {folder!r}")
        # torch's own search does not tell capital letters from small ones.
        if name.lower() in seen:
            raise ArchiveInvalid(f"{name!r} is there twice")
        seen.add(name.lower())
        paths.append(name.removeprefix(f"{folder}/"))
    return paths


def _check_places(content: bytes, infos: Sequence[zipfile.ZipInfo], directory_offset: int) -> None:
    """Refuse entries whose own headers say other than the directory, and such as share bytes."""
    in_order = sorted(infos, key=lambda each: each.header_offset)
    # By what the file begins with, torch may take it for another format altogether.
    if in_order[0].header_offset != 0:
        raise ArchiveInvalid("something stands before its first entry")
    taken = 0
    for info in in_order:
        offset = info.header_offset
        if offset < taken:
            raise ArchiveInvalid(f"{info.filename!r} shares its bytes with another entry")
        signature, _, flags, method, *_, name_size, extra_size = LOCAL_HEADER.unpack_from(content, offset)
        name = info.orig_filename.encode("utf-8" if flags & NAME_IS_UTF8 else "cp437")
        offset += LOCAL_HEADER.size
        if (
            signature != b"PK\x03\x04"
            or (flags, method) != (info.flag_bits, info.compress_type)
            or flags & ~(NAME_IS_UTF8 | SIZES_FOLLOW)
            or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            or content[offset : offset + name_size] != name
        ):
            raise ArchiveInvalid(
                f"{info.filename!r} has a header that is not as its directory says or torch writes"
            )
        taken = offset + name_size + extra_size + info.compress_size
    if taken > directory_offset:
        raise ArchiveInvalid("its last entry is cut short")


def _read(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> Archive:
    sources = [path for path in entries if path.startswith("code/") and path.endswith(".py")]
    notes = [path for path in entries if path.startswith("code/") and path.endswith(".debug_pkl")]
    notes += [path for path in NOTES if path in entries]
    pickles = [path for path in PICKLES if path in entries]
    read = {*sources, *notes, *pickles}
    for path, info in entries.items():
        if path in read or path.startswith(UNREAD):
            continue
        if not path.startswith(TENSORS):
            raise ArchiveInvalid(f"{path!r} does not belong into what torch.jit.save writes")
        # What is not packed cannot be larger than the file.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ArchiveInvalid(f"the tensor {path!r} is packed")
    if sum(entries[path].file_size for path in read) > MOST_READ_BYTES:
        raise ArchiveInvalid(f"unpacked, its code is over {MOST_READ_BYTES} bytes")
    for path in sources:
        if entries[path].file_size > MOST_SOURCE_BYTES:
            raise ArchiveInvalid(f"{path} is over {MOST_SOURCE_BYTES} bytes")
    return Archive(
        {path: archive.read(entries[path]) for path in sources},
        {path: archive.read(entries[path]) for path in pickles},
    )
