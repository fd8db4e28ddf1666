import io
import json
import logging
from collections.abc import Iterator

import pytest

from app import logs


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_record_is_one_json_object_a_line() -> None:
    stream = io.StringIO()
    logs.configure("auto", "info", stream)
    logging.getLogger("x").info("two\nlines", extra={"fields": {"status": 200, "path": "/predict"}})
    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert (line["message"], line["level"], line["status"], line["path"]) == (
        "two\nlines",
        "info",
        200,
        "/predict",
    )
    assert line["time"].endswith("+00:00")


def test_a_failure_carries_its_traceback_and_request() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("failed", extra={"request_id": "r1"})
    line = json.loads(stream.getvalue())
    assert "ValueError: why" in line["exception"]
    assert line["request_id"] == "r1"


def test_a_terminal_gets_lines_that_a_person_reads() -> None:
    stream = Terminal()
    logs.configure("auto", "info", stream)
    logging.getLogger("x").info("request", extra={"fields": {"status": 200}})
    assert stream.getvalue().endswith("INFO    request status=200\n")


@pytest.mark.parametrize(("stream", "said"), [(io.StringIO(), '"worker": 2'), (Terminal(), " worker=2")])
def test_each_line_of_a_worker_process_says_which_it_is(stream: io.StringIO, said: str) -> None:
    logs.configure("auto", "info", stream, worker=2)
    logging.getLogger("x").info("request")
    logging.getLogger("y").warning("no fields at all")
    assert stream.getvalue().count(said) == 2


def test_a_client_cannot_forge_a_line_or_steer_the_terminal() -> None:
    stream = Terminal()
    logs.configure("auto", "info", stream)
    logging.getLogger("x").info("request", extra={"fields": {"path": "/a\n12:00 INFO forged\x1b[31m"}})
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_lesser_levels_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure("json", "warning", stream)
    logging.getLogger("x").info("quiet")
    assert stream.getvalue() == ""
