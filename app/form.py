"""A multipart form -> the files in it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:  # the parser's module defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

from app.errors import InvalidRequest

FORM_TYPE = "multipart/form-data"
FILE_FIELD = "file"


def form_files(body: bytes, boundary: bytes | None, check_count: Callable[[int], None]) -> Sequence[bytes]:
    """Return the content of each part named `file`, in order.

    Args:
        body: The whole form.
        boundary: What stands between its parts, as the request's header says.
        check_count: Called before a part is read, with how many there are then; raises if that is too many.

    Raises:
        InvalidRequest: It is no whole form, or has parts of another name, or none.
    """
    if not boundary:
        raise InvalidRequest(f"content-type: {FORM_TYPE} has no boundary; let your client set the header")
    form = _Form(check_count)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
    except FormParserError as error:
        raise InvalidRequest(f"body: is not the multipart form that its boundary promises: {error}") from None
    if not form.ended:
        raise InvalidRequest("body: the multipart form ends before its closing boundary")
    if not form.files:
        raise InvalidRequest(f"{FILE_FIELD}: the form has no part of that name")
    return form.files


class _Form:
    """Collects the parts named `file`; any other part is an error, so that none is silently lost."""

    def __init__(self, check_count: Callable[[int], None]) -> None:
        self.files: list[bytes] = []
        self.ended = False
        self._check_count = check_count
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._content = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        """The parser's hooks."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._take_header_name,
            "on_header_value": self._take_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": self._take_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._disposition = b""
        self._content = bytearray()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _check_name(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != FILE_FIELD:
            raise InvalidRequest(f"{name or 'a part without a name'}: is not taken; name each part {FILE_FIELD!r}")
        self._check_count(len(self.files) + 1)

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end_part(self) -> None:
        self.files.append(bytes(self._content))

    def _end(self) -> None:
        self.ended = True
