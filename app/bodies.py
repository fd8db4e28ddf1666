"""A request's body -> its items, for each content type that /predict takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header

from app.base64_images import sent_base64
from app.errors import InvalidRequest, ServingError, TextTooLong, TooManyItems, UnsupportedMediaType, explain
from app.form import FORM_TYPE, form_files
from app.items import Item
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
# A body of these is an image as it is: nothing is to be parsed.
WHOLE_IMAGES = frozenset((*IMAGE_TYPES, *IMAGE_ALIASES))
# Named, because some of Python's codecs are no charsets, and some take quadratic time.
CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16")
# With the longest boundary that a form may have, and to spare.
MOST_TYPE_CHARS = 1_000
# A parser makes an object for each value before anyone can count the items: bounded by what separates them.
MOST_JSON_VALUES = 100_000


@dataclass(frozen=True)
class BodyLimits:
    """How much a body may hold."""

    max_items: int
    max_text_chars: int


class ParsedBody(NamedTuple):
    """A request's items in order, an error in the place of a bad one, and what its body asks for besides."""

    items: tuple[Item | ServingError, ...]
    model: str | None = None
    top_k: int | None = None


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
    if content_type is not None and len(content_type) > MOST_TYPE_CHARS:
        raise UnsupportedMediaType(f"content-type: has over {MOST_TYPE_CHARS} characters")
    media_type, options = _media_type(content_type)
    parse = _PARSERS.get(media_type)
    if parse is None:
        raise UnsupportedMediaType(
            f"content type {media_type or 'missing'!r} is not taken; send {', '.join(IMAGE_TYPES)}, {FORM_TYPE}, "
            "text/plain or application/json"
        )
    return parse(body, options, limits)


# Clients send the same few, over and over.
@lru_cache(maxsize=256)
def _media_type(content_type: str | None) -> tuple[str, Mapping[bytes, bytes]]:
    name, options = parse_options_header(content_type)
    return name.decode("latin-1"), options


def _raw_image(body: bytes, _options: Mapping[bytes, bytes], _limits: BodyLimits) -> ParsedBody:
    return ParsedBody((Item("image", body),))


def _plain_text(body: bytes, options: Mapping[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise InvalidRequest(f"content-type: charset {charset!r} is not taken; send one of {', '.join(CHARSETS)}")
    try:
        text = body.decode(charset)
    except UnicodeError:
        raise InvalidRequest(f"body: is not {charset} text") from None
    return ParsedBody((text_item(text, limits),))


def _json(body: bytes, _options: Mapping[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    check_json_values(body)
    try:
        request = JsonRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors()[0])) from None
    check_count(len(request.instances), limits.max_items)
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
            return text_item(parsed.text, limits)
        except TextTooLong as error:
            return TextTooLong(f"instances.{index}.text: {error.detail}")
    try:
        return Item("image", sent_base64(parsed.image), base64=True)
    except InvalidRequest as error:
        return InvalidRequest(f"instances.{index}.image: {error.detail}")


def _multipart(body: bytes, options: Mapping[bytes, bytes], limits: BodyLimits) -> ParsedBody:
    files = form_files(body, options.get(b"boundary"), partial(check_count, max_items=limits.max_items))
    return ParsedBody(tuple(Item("image", content) for content in files))


def text_item(text: str, limits: BodyLimits) -> Item:
    """Turn a text into an item.

    Raises:
        TextTooLong: It has more characters than allowed.
    """
    if len(text) > limits.max_text_chars:
        raise TextTooLong(f"the text has {len(text)} characters; at most {limits.max_text_chars} are allowed")
    return Item("text", text.encode())


def check_json_values(body: bytes) -> None:
    """Refuse JSON that would become more objects than there is reason for, before it is parsed.

    Raises:
        InvalidRequest: It has too many values.
    """
    if sum(body.count(separator) for separator in (b",", b"[", b"{")) > MOST_JSON_VALUES:
        raise InvalidRequest(f"body: has over {MOST_JSON_VALUES} values; send fewer at once")


def check_count(count: int, max_items: int) -> None:
    """Refuse a request that has so many items, or more.

    Raises:
        TooManyItems: They are more than allowed.
    """
    if count > max_items:
        raise TooManyItems(f"the request has {count} items or more; at most {max_items} are allowed: split it")


_PARSERS: dict[str, Callable[[bytes, Mapping[bytes, bytes], BodyLimits], ParsedBody]] = {
    **dict.fromkeys(WHOLE_IMAGES, _raw_image),
    FORM_TYPE: _multipart,
    "text/plain": _plain_text,
    "application/json": _json,
}
