"""Requests as an enemy would write them, made by a seed: any number, of every kind in turn."""

import base64
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from PIL import Image

from app.api_keys import new_key
from tests.hostile_images import HOSTILE_IMAGES

# Of an administrator, who may be attacked through the key.
ADMIN_KEY = new_key()
PREDICT = "/models/shades/predict"
TEXTS = "/models/moods/predict"
INFER = "/v2/models/shades/infer"
BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
LARGEST_COSTLY_BYTES = 350_000
LENGTH_HEADER = "Inference-Header-Content-Length"


class Hostile(NamedTuple):
    """A request, byte for byte.

    Attributes:
        kind: For the report.
        content: What is sent.
        ends: Whether nothing more is sent: the rest never comes, if there should be one.
    """

    kind: str
    content: bytes
    ends: bool = False


Make = Callable[[random.Random], Hostile]


def hostile_requests(count: int, seed: int = 0) -> Iterator[Hostile]:
    """Make so many."""
    random_ = random.Random(seed)  # noqa: S311 (no secret is made of it)
    for number in range(count):
        yield KINDS[number % len(KINDS)](random_)


def post(path: str, content_type: str, body: bytes, **headers: str) -> bytes:
    """Write a request as it should be."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def _image(random_: random.Random, format_: str | None = None) -> tuple[bytes, str]:
    format_ = format_ or random_.choice(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
    size = (random_.randint(1, 64), random_.randint(1, 64))
    pixels = Image.frombytes("RGB", size, random_.randbytes(3 * size[0] * size[1]))
    stream = io.BytesIO()
    pixels.save(stream, format_)
    return stream.getvalue(), f"image/{format_.lower()}"


def _truncated(random_: random.Random) -> Hostile:
    data, kind = _image(random_)
    return Hostile("truncated image", post(PREDICT, kind, data[: random_.randrange(len(data))]))


def _flipped(random_: random.Random) -> Hostile:
    data, kind = _image(random_)
    damaged = bytearray(data)
    for _ in range(random_.randint(1, 20)):
        damaged[random_.randrange(len(damaged))] ^= 1 << random_.randrange(8)
    return Hostile("bit-flipped image", post(PREDICT, kind, bytes(damaged)))


def _polyglot(random_: random.Random) -> Hostile:
    first, kind = _image(random_)
    second, _ = _image(random_)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.html", "<script>alert(1)</script>")
    tail = random_.choice([second, archive.getvalue(), b"%PDF-1.7\n", b"<svg onload=alert(1)>"])
    return Hostile("polyglot image", post(PREDICT, kind, first + tail))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _pixel_bomb(random_: random.Random) -> Hostile:
    width, height = random_.choice([(60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 0), (20_000, 20_000)])
    header = struct.pack(">IIBBBBB", width, height, random_.choice([1, 8, 16]), random_.choice([0, 2, 6]), 0, 0, 0)
    data = zlib.compress(bytes(random_.randint(0, 3_000_000)), 9)
    body = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return Hostile("pixel bomb", post(PREDICT, "image/png", body))


@cache
def _costly_images() -> list[tuple[str, bytes]]:
    # Of larger bodies glibc keeps several times their size in each arena: that is no growth, and would hide one.
    made = [(kind, make()) for kind, make in HOSTILE_IMAGES.values()]
    return [(kind, content) for kind, content in made if len(content) <= LARGEST_COSTLY_BYTES]


def _costly_image(random_: random.Random) -> Hostile:
    return Hostile("image that costs to read", post(PREDICT, *random_.choice(_costly_images())))


def _text_bomb(random_: random.Random) -> Hostile:
    # A compressed text chunk that unpacks to far more than the image.
    data = b"key\0\0" + zlib.compress(bytes(random_.randint(1, 20) * 1_000_000), 9)
    image, _ = _image(random_, "PNG")
    return Hostile("text bomb", post(PREDICT, "image/png", image[:33] + _chunk(b"zTXt", data) + image[33:]))


def _gzip_bomb(random_: random.Random) -> Hostile:
    body = gzip.compress(bytes(random_.randint(1, 50) * 1_000_000))
    if random_.random() < 0.3:
        body = body[: random_.randrange(len(body))] + random_.randbytes(10)
    return Hostile("gzip bomb", post(PREDICT, "image/png", body, Content_Encoding="gzip"))


def _too_little(random_: random.Random) -> Hostile:
    data, kind = _image(random_)
    whole = post(PREDICT, kind, data)
    return Hostile("less than announced", whole[: -random_.randint(1, len(data))], ends=True)


def _bad_length(random_: random.Random) -> Hostile:
    length = random_.choice(["-1", "1e3", "99999999999999999999", "0x10", "", "5, 6", "+5", " "])
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    return Hostile("bad length", head.encode() + b"x" * 10, ends=True)


def _bad_chunks(random_: random.Random) -> Hostile:
    size = random_.choice([b"zz", b"-5", b"ffffffffffffffff", b"5;" + b"x" * 5_000, b"", b"3\n"])
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Hostile("bad chunks", head.encode() + size + b"\r\nabc\r\n0\r\n\r\n", ends=True)


def _both_lengths(random_: random.Random) -> Hostile:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {random_.randint(0, 50)}\r\n"
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    return Hostile("two lengths", head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + smuggled, ends=True)


def _deep_json(random_: random.Random) -> Hostile:
    depth = random_.choice([101, 1_000, 100_000])
    opening, closing = random_.choice([("[", "]"), ('{"a":', "}")])
    text = opening * depth + "1" + closing * (depth if random_.random() < 0.5 else 0)
    path = random_.choice([PREDICT, INFER])
    wrapped = random_.choice([text, f'{{"instances": {text}}}', f'{{"inputs": {text}}}'])
    return Hostile("deep JSON", post(path, "application/json", wrapped.encode()))


def _huge_numbers(random_: random.Random) -> Hostile:
    number = random_.choice(
        ["9" * 5_000, "1e999999", "-1e400", "1" + "0" * 400, "NaN", "Infinity", "-0.0", "1e-400"]
    )
    tensor = f'{{"name": "images", "datatype": "UINT8", "shape": [{number}, 1, 8, 8], "data": [{number}]}}'
    bodies = [f'{{"instances": [{{"text": {number}}}]}}', f'{{"inputs": [{tensor}]}}', f'{{"top_k": {number}}}']
    path = random_.choice([PREDICT, INFER])
    return Hostile("huge numbers", post(path, "application/json", random_.choice(bodies).encode()))


def _not_utf8(random_: random.Random) -> Hostile:
    text = b'{"instances": [{"text": "' + random_.randbytes(20) + b'\xed\xa0\x80"}]}'
    path, kind = random_.choice(
        [(PREDICT, "application/json"), (PREDICT, "text/plain"), (INFER, "application/json")]
    )
    return Hostile("not UTF-8", post(path, kind, text))


def _form(random_: random.Random) -> Hostile:
    image, _ = _image(random_)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    bodies = {
        "no end": part + image,
        "many parts": (part + b"x\r\n") * random_.randint(100, 5_000) + end,
        "large header": part.replace(b"filename", b"x" * 100_000 + b"=1; filename") + image + end,
        "no disposition": f"--{BOUNDARY}\r\n\r\n".encode() + image + end,
        "another field": part.replace(b'"file"', b'"other"') + image + end,
        "nothing": end,
        "no boundary in it": image,
        "hostile name": part.replace(b'"x"', b'"../../etc/passwd\0"') + image[:10] + end,
    }
    name = random_.choice(sorted(bodies))
    types = [
        FORM,
        "multipart/form-data",
        f"multipart/form-data; boundary={'x' * 300}",
        "multipart/form-data; boundary=",
    ]
    kind = FORM if random_.random() < 0.8 else random_.choice(types)
    return Hostile("form abuse", post(PREDICT, kind, bodies[name]))


def _header_flood(random_: random.Random) -> Hostile:
    many = random_.choice([(300, 10), (20, 5_000), (1, 200_000), (5_000, 1)])
    flood = "".join(f"X-{number}: {'y' * many[1]}\r\n" for number in range(many[0]))
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n{flood}Content-Length: 0\r\nConnection: close\r\n\r\n"
    return Hostile("header flood", head.encode())


def _strange_headers(random_: random.Random) -> Hostile:
    image, kind = _image(random_)
    headers = random_.choice(
        [
            {"X_Request_Timeout_Ms": "nan"},
            {"X_Request_Timeout_Ms": "1e400"},
            {"X_Request_ID": "a" * 10_000},
            {"X_Request_ID": "a\x00b"},
            {"X_Routing_Key": "\xff" * 1_000},
            {"Content_Encoding": "gzip, gzip"},
            {"Expect": "100-continue"},
            {"Authorization": "Bearer " + "x" * 5_000},
        ]
    )
    return Hostile("strange headers", post(PREDICT, kind, image, **headers))


def _binary(random_: random.Random) -> Hostile:
    size = random_.choice([-1, 0, 10, 63, 65, 2**31, 2**63, 10**30, "64", None, True, 1.5])
    shape = random_.choice(
        [[1, 1, 8, 8], [2**62, 4, 8, 8], [-1, 1, 8, 8], [0], [], [1] * 100, "x", [1.5, 1, 8, 8]]
    )
    datatype = random_.choice(["UINT8", "BYTES", "FP32", "FP16", "x", 5])
    tensor = {"name": "images", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor] * random_.choice([1, 1, 2, 1_000])}).encode()
    length = random_.choice([str(len(text)), "-1", "0", "9" * 30, str(len(text) + 1_000), "x", str(len(text) - 1)])
    body = text + random_.randbytes(random_.choice([0, 64, 1_000]))
    return Hostile("binary tensors", post(INFER, "application/octet-stream", body, **{LENGTH_HEADER: length}))


def _noise(random_: random.Random) -> Hostile:
    return Hostile("noise", random_.randbytes(random_.randint(1, 2_000)) + b"\r\n\r\n", ends=True)


def _paths(random_: random.Random) -> Hostile:
    path = random_.choice(
        [
            "/models/%00/predict",
            "/models/..%2f..%2fetc%2fpasswd/predict",
            "/models/" + "a" * 20_000 + "/predict",
            "/v2/models/shades/versions/%ff/infer",
            "/predict?top_k=99999999999999999999",
            "/predict?model=" + "%F0" * 100,
            "//predict",
            "/predict#x",
        ]
    )
    image, kind = _image(random_)
    return Hostile("strange paths", post(path, kind, image))


def _text(random_: random.Random) -> Hostile:
    text = random_.choice(
        [
            random_.randbytes(random_.randint(1, 5_000)),
            b"\0" * random_.randint(1, 5_000),
            b"a" * random_.randint(1, 1_000_000),
            b"a " * random_.randint(1, 30_000),
            "e\u0301\u0323".encode() * random_.randint(1, 10_000),
            "\U0001f468\u200d\U0001f469".encode() * random_.randint(1, 5_000),
            "\u202egood\ufeff\ufffe\uffff".encode(),
            "\ufdfa".encode() * random_.randint(1, 5_000),
        ]
    )
    if random_.random() < 0.5:
        return Hostile("hostile text", post(TEXTS, "text/plain", text))
    escaped = json.dumps({"instances": [{"text": text.decode("latin-1") + random_.choice(["", "\ud800", "\0"])}]})
    return Hostile("hostile text", post(TEXTS, "application/json", escaped.encode()))


def _correction(random_: random.Random) -> Hostile:
    image, _ = _image(random_)
    sent = base64.b64encode(image[: random_.randrange(len(image))]).decode()
    correction = {
        "request_id": random_.choice(["x", "", "x" * 10_000, "\0", "\ud800", None, 5]),
        "model": random_.choice(["shades", "moods", "../shades", "x" * 100_000, "", None]),
        "label": random_.choice(
            ["grey", "'; DROP TABLE corrections; --", "\0", "\ud800", "x" * 100_000, ["grey"]]
        ),
        "image": random_.choice([sent, sent + "=", "%", "file:///etc/passwd", None, {"a": sent}]),
        "text": random_.choice([None, None, "\ud800", "a" * 500_000]),
        random_.choice(["image", "text", "label", "id", "__class__"]): random_.choice(["x", 1e308, [], None]),
    }
    return Hostile("hostile correction", post("/feedback", "application/json", json.dumps(correction).encode()))


def _administration(random_: random.Random) -> Hostile:
    name = random_.choice(["..%2f..%2fetc", "%00", "nobody", "a" * 10_000, "shades%2f..%2fmoods", "SHADES"])
    version = random_.choice(["../../x", "", "x" * 100_000, "20260101.1", None, 5, "\ud800", ["20260101.1"]])
    share = random_.choice([0.5, -1, 1e308, "x", None, True])
    method, path = random_.choice(
        [
            ("POST", "/v2/repository/index"),
            ("POST", f"/v2/repository/models/{name}/load"),
            ("POST", f"/v2/repository/models/{name}/unload"),
            ("POST", f"/admin/models/{name}/promote"),
            ("DELETE", f"/admin/models/{name}/candidate"),
            ("POST", "/admin/models/shades/rollback"),
            ("PUT", "/admin/models/shades/candidate"),
        ]
    )
    body = random_.choice(
        [
            json.dumps({"version": version, "share": share}),
            json.dumps({"parameters": {"config": "x" * 10_000, "file:1/model": "x"}, "ready": share}),
            "[" * 100_000,
            "",
        ]
    )
    key = random_.choice([ADMIN_KEY, ADMIN_KEY, ADMIN_KEY[:-1], "x" * 5_000, ""])
    request = post(path, "application/json", body.encode(), Authorization=f"Bearer {key}")
    return Hostile("hostile administration", request.replace(b"POST", method.encode(), 1))


KINDS: tuple[Make, ...] = (
    *(_truncated, _flipped, _polyglot, _pixel_bomb, _text_bomb, _gzip_bomb, _too_little, _bad_length, _bad_chunks),
    *(
        _both_lengths,
        _deep_json,
        _huge_numbers,
        _not_utf8,
        _form,
        _header_flood,
        _strange_headers,
        _binary,
        _noise,
    ),
    _paths,
    _costly_image,
    _text,
    _correction,
    _administration,
)
