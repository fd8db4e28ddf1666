import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bodies import IMAGE_TYPES, BodyLimits, ParsedBody, parse_body
from app.errors import InvalidRequest, ServingError, TextTooLong, TooManyItems, UnsupportedMediaType
from app.items import Item
from app.schemas import JsonRequest

FORM = "multipart/form-data; boundary=xyz"


def parse(content_type: str | None, body: bytes, max_items: int, max_text_chars: int = 1000) -> ParsedBody:
    return parse_body(content_type, body, BodyLimits(max_items, max_text_chars))


def form(*parts: tuple[str, bytes], end: bytes = b"--xyz--\r\n") -> bytes:
    body = b""
    for disposition, content in parts:
        body += b"--xyz\r\nContent-Disposition: form-data" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + end


def file(content: bytes, filename: str = "a.png") -> tuple[str, bytes]:
    return f'; name="file"; filename="{filename}"', content


@pytest.mark.parametrize("content_type", [*IMAGE_TYPES, "image/jpg", "IMAGE/PNG", "image/png; charset=binary"])
def test_a_raw_body_is_one_image(content_type: str) -> None:
    assert parse(content_type, b"bytes", 1).items == (Item("image", b"bytes"),)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/pdf", "image/svg+xml", "application/x-www-form-urlencoded", ";", "\xff"],
)
def test_another_type_is_refused_with_the_ones_taken(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"image/jpeg.*multipart/form-data.*text/plain.*json"):
        parse(content_type, b"x", 1)


def test_a_type_that_is_longer_than_any_is_refused_unread() -> None:
    with pytest.raises(UnsupportedMediaType, match="over 1000 characters"):
        parse(f"image/png;{'a=1;' * 10_000}", b"", 1)


def test_a_form_gives_its_files_in_order() -> None:
    body = form(file(b"one"), file(b"two\r\n--x"), file(b""))
    assert parse(FORM, body, 3).items == (
        Item("image", b"one"),
        Item("image", b"two\r\n--x"),
        Item("image", b""),
    )


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (form(), "file: the form has no part"),
        (form(('; name="image"; filename="a.png"', b"x")), "image: is not taken"),
        (form(file(b"x"), ('; name="comment"', b"hi")), "comment: is not taken"),
        (form(("", b"x")), "a part without a name"),
        (form(file(b"x"), end=b""), "ends before its closing boundary"),
        (form(file(b"x"))[:-4], "ends before its closing boundary"),
        (b"not a form", "not the multipart form"),
        (b"", "ends before its closing boundary"),
    ],
)
def test_a_form_that_is_off_is_refused_with_the_reason(body: bytes, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse(FORM, body, 9)


@pytest.mark.parametrize("content_type", ["multipart/form-data", f"multipart/form-data; boundary={'x' * 300}"])
def test_a_form_needs_a_usable_boundary(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        parse(content_type, form(file(b"x")), 9)


def test_a_form_of_too_many_files_is_refused() -> None:
    with pytest.raises(TooManyItems, match="at most 2"):
        parse(FORM, form(file(b"1"), file(b"2"), file(b"3")), 2)


def test_a_text_is_one_item_in_its_charset() -> None:
    assert parse("text/plain", "naïve".encode(), 1).items == (Item("text", "naïve".encode()),)
    latin = parse("text/plain; charset=ISO-8859-1", "naïve".encode("latin-1"), 1)
    assert latin.items == (Item("text", "naïve".encode()),)


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=US-ASCII"])
def test_a_text_that_is_not_in_its_charset_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not .* text"):
        parse(content_type, b"\xff\xfe", 1)


@pytest.mark.parametrize("charset", ["klingon", "punycode", "unicode_escape", "idna", "undefined", "utf-7", "zip"])
def test_a_charset_that_is_none_is_refused_with_those_taken(charset: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not taken; send one of utf-8"):
        parse(f"text/plain; charset={charset}", b"a-!!!", 1)


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,"])
def test_json_of_countless_values_is_refused_before_it_is_parsed(
    filler: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JsonRequest, "model_validate_json", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(InvalidRequest, match="over 100000 values"):
        parse("application/json", b'{"instances": [' + filler * 100_000 + b"1]}", 9)


def from_json(body: object, max_items: int = 9) -> tuple[Item | ServingError, ...]:
    return parse("application/json", json.dumps(body).encode(), max_items).items


def test_json_instances_are_items_in_order() -> None:
    assert from_json(
        {"instances": [{"image": "YQ=="}, {"text": "b"}, {"image": "data:image/png;base64,Yw=="}]}
    ) == (
        Item("image", b"YQ==", base64=True),
        Item("text", b"b"),
        Item("image", b"Yw==", base64=True),
    )


def test_json_may_name_the_model_and_the_number_of_labels() -> None:
    parsed = parse("application/json", b'{"instances": [{"text": ""}], "model": "m", "top_k": 2}', 1)
    assert (parsed.model, parsed.top_k) == ("m", 2)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": {"image": ""}}, "instances"),
        ({"instances": [{"text": ""}], "topk": 1}, "topk"),
        ({"instances": [{"text": ""}], "top_k": 0}, "top_k"),
        ({"instances": [{"text": ""}], "top_k": "many"}, "top_k"),
        ({"instances": [{"text": ""}], "top_k": "3"}, "top_k"),
        ({"instances": [{"text": ""}], "top_k": True}, "top_k"),
        ({"instances": [{"text": ""}], "model": 7}, "model"),
        ([], "body"),
        (None, "body"),
    ],
)
def test_json_that_is_off_is_refused_with_the_field(body: object, field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field}"):
        from_json(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"instances": ' + b"[" * 5000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        parse("application/json", body, 1)


@pytest.mark.parametrize(
    ("instance", "complaint"),
    [
        ({}, "image: Field required"),
        ({"image": 5}, "image"),
        ({"image": "ü"}, "image: is not base64"),
        ({"text": 5}, "text"),
        ({"text": "a", "image": "b"}, "image"),
        ({"imag": "b"}, "imag"),
        ("a", "instances.1"),
        (None, "instances.1"),
    ],
)
def test_a_bad_instance_is_an_error_in_its_place(instance: object, complaint: str) -> None:
    first, second, third = from_json({"instances": [{"text": "a"}, instance, {"text": "c"}]})
    assert (first, third) == (Item("text", b"a"), Item("text", b"c"))
    assert isinstance(second, InvalidRequest)
    assert second.detail.startswith("instances.1")
    assert complaint in second.detail


def test_json_of_too_many_instances_is_refused() -> None:
    with pytest.raises(TooManyItems, match="at most 2"):
        from_json({"instances": [{"text": ""}] * 3}, max_items=2)


@given(st.binary(max_size=200), st.sampled_from([FORM, "application/json", "text/plain", "image/png"]))
def test_any_bytes_parse_or_are_refused_by_name(body: bytes, content_type: str) -> None:
    status = 200
    try:
        assert parse(content_type, body, 5).items
    except ServingError as error:
        status = error.status
    assert status < 500


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_any_files_come_back_from_a_form(contents: list[bytes]) -> None:
    if any(b"\r\n--xyz" in content for content in contents):
        return
    body = form(*map(file, contents))
    assert parse(FORM, body, 5).items == tuple(Item("image", content) for content in contents)


def test_a_text_is_limited_in_characters_and_not_in_bytes() -> None:
    assert parse("text/plain", "é€🙂".encode(), 1, 3).items == (Item("text", "é€🙂".encode()),)
    with pytest.raises(TextTooLong, match="has 4 characters; at most 3"):
        parse("text/plain", b"four", 1, 3)


def test_a_long_text_among_others_fails_alone() -> None:
    body = json.dumps({"instances": [{"text": "abc"}, {"text": "abcd"}]}).encode()
    good, bad = parse("application/json", body, 2, 3).items
    assert good == Item("text", b"abc")
    assert isinstance(bad, TextTooLong)
    assert bad.detail.startswith("instances.1.text: ")
