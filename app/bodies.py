"""A request's body -> its items, for each content type that /predict takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:  # the parser's module defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

from app.errors import InvalidRequest, ServingError, TextTooLong, TooManyItems, UnsupportedMediaType, explain
from app.items import Item, ParsedBody
from app.schemas import ImageInstance, JsonRequest, TextInstance

IMAGE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/bmp",
    "image/gif",
    "image/tiff",
)
# Names that clients send for the same formats; the bytes decide, whatever the name.
IMAGE_ALIASES = ("image/jpg", "image/pjpeg", "image/x-png", "image/x-ms-bmp", "image/tif", "image/*")
# Named, because some of Python's codecs are no charsets, and some take quadratic time.
CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16")
# A parser makes an object for each value before anyone can count the items: bounded by what separates them.
MOST_JSON_VALUES = 100_000
FORM_TYPE = "multipart/form-data"
FILE_FIELD = "file"


@dataclass(frozen=True)
class BodyLimits:
    """How much a body may hold."""

    max_items: int
    max_text_chars: int


def parse_body(content_type: str | None, body: bytes, limits: BodyLimits) -> ParsedBody:
    """Split a body into items.

    Args:
        content_type: The header, with its parameters.
        body: The whole body.
        limits: How much it may hold.

    Raises:
        UnsupportedMediaType: The type is none of those taken.
        InvalidRequest: The body is not what its type says; the detail names the field.
        TooManyItems: It holds more items than allowed.
        TextTooLong: It is one text, longer than allowed; in JSON that is the instance's own error.
    """
    name, options = parse_options_header(content_type)
    media_type = name.decode("latin-1")
    parse = _PARSERS.get(media_type)
    if parse is None:
        raise UnsupportedMediaType(
            f"content type {media_type or 'missing'!r} is not taken; send {', '.join(IMAGE_TYPES)}, {FORM_TYPE}, "
            "text/plain or application/json"
        )
    return parse(body, options, limits)


def _raw_image(body: bytes, _options: dict[bytes, bytes], _limits: BodyLimits) -> ParsedBody:
    return ParsedBody((Item("image", body),))


def _plain_text(body: bytes, options: dict[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise InvalidRequest(f"content-type: charset {charset!r} is not taken; send one of {', '.join(CHARSETS)}")
    try:
        text = body.decode(charset)
    except UnicodeError:
        raise InvalidRequest(f"body: is not {charset} text") from None
    return ParsedBody((_text(text, limits),))


def _json(body: bytes, _options: dict[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    if sum(body.count(separator) for separator in (b",", b"[", b"{")) > MOST_JSON_VALUES:
        raise InvalidRequest(f"body: has over {MOST_JSON_VALUES} values; send fewer items at once")
    try:
        request = JsonRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors()[0])) from None
    _check_count(len(request.instances), limits.max_items)
    items = tuple(_instance(index, instance, limits) for index, instance in enumerate(request.instances))
    return ParsedBody(items, request.model, request.top_k)


def _instance(index: int, instance: object, limits: BodyLimits) -> Item | ServingError:
    schema: type[BaseModel] = TextInstance if isinstance(instance, dict) and "text" in instance else ImageInstance
    try:
        parsed: Any = schema.model_validate(instance)
    except ValidationError as error:
        return InvalidRequest(f"instances.{index}: {explain(error.errors()[0])}")
    if isinstance(parsed, TextInstance):
        try:
            return _text(parsed.text, limits)
        except TextTooLong as error:
            return TextTooLong(f"instances.{index}.text: {error.detail}")
    encoded = parsed.image.rpartition(",")[2] if parsed.image.startswith("data:") else parsed.image
    if not encoded.isascii():
        return InvalidRequest(f"instances.{index}.image: is not base64")
    return Item("image", encoded.encode("ascii"), base64=True)


def _multipart(body: bytes, options: dict[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest(f"content-type: {FORM_TYPE} has no boundary; let your client set the header")
    form = _Form(limits.max_items)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
    except FormParserError as error:
        raise InvalidRequest(f"body: is not the multipart form that its boundary promises: {error}") from None
    if not form.ended:
        raise InvalidRequest("body: the multipart form ends before its closing boundary")
    if not form.files:
        raise InvalidRequest(f"{FILE_FIELD}: the form has no part of that name")
    return ParsedBody(tuple(Item("image", content) for content in form.files))


def _text(text: str, limits: BodyLimits) -> Item:
    if len(text) > limits.max_text_chars:
        raise TextTooLong(f"the text has {len(text)} characters; at most {limits.max_text_chars} are allowed")
    return Item("text", text.encode())


def _check_count(count: int, max_items: int) -> None:
    if count > max_items:
        raise TooManyItems(f"the request has {count} items or more; at most {max_items} are allowed: split it")


class _Form:
    """Collects the parts named `file`; any other part is an error, so that none is silently lost."""

    def __init__(self, max_items: int) -> None:
        self.files: list[bytes] = []
        self.ended = False
        self._max_items = max_items
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
        _check_count(len(self.files) + 1, self._max_items)

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end_part(self) -> None:
        self.files.append(bytes(self._content))

    def _end(self) -> None:
        self.ended = True


_PARSERS: dict[str, Callable[[bytes, dict[bytes, bytes], BodyLimits], ParsedBody]] = {
    **dict.fromkeys((*IMAGE_TYPES, *IMAGE_ALIASES), _raw_image),
    FORM_TYPE: _multipart,
    "text/plain": _plain_text,
    "application/json": _json,
}
