import asyncio
import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from app.batching import Ticket
from app.decoding import Decoder
from app.errors import DeadlineExceeded, ImageTooLarge, InternalError, InvalidRequest, UndecodableImage
from app.items import Item
from models.preparation import ImagePreparation, Preparation
from tests.bundles import decoding
from tests.images import png
from tests.servers import until


class Sink:
    """Stands in for a batcher: keeps what it is given."""

    def __init__(self) -> None:
        self.examples: list[torch.Tensor] = []
        self.errors: list[Exception] = []

    def put(self, _: Ticket, example: torch.Tensor) -> None:
        self.examples.append(example)

    def fail(self, _: Ticket, error: Exception) -> None:
        self.errors.append(error)


def ticket(deadline_s: float = 1e12) -> Ticket:
    loop = asyncio.new_event_loop()
    loop.close()
    return Ticket(deadline_s, loop.create_future(), 0.0)


def decoded(item: Item, deadline_s: float = 1e12, preparation: Preparation | None = None) -> Sink:
    sink: Any = Sink()
    decoder = Decoder(1)
    decoder.submit(sink, ticket(deadline_s), item, preparation or ImagePreparation(decoding(), 10_000))
    until(lambda: bool(sink.examples or sink.errors))
    decoder.close()
    found: Sink = sink
    return found


def test_bytes_become_an_example() -> None:
    (example,) = decoded(Item("image", png(7))).examples
    assert example.shape == (1, 8, 8)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: text[:20] + b"\r\n" + text[20:] + b"\n"])
def test_base64_is_taken_in_one_line_or_wrapped(wrap: Callable[[bytes], bytes]) -> None:
    item = Item("image", wrap(base64.b64encode(png(7))), base64=True)
    assert len(decoded(item).examples) == 1


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (Item("image", b"no image"), UndecodableImage),
        (Item("image", png(0, (200, 100))), ImageTooLarge),
        (Item("image", b"!!!", base64=True), InvalidRequest),
        (Item("image", b"YQ=", base64=True), InvalidRequest),
    ],
)
def test_what_cannot_be_decoded_fails_by_name(item: Item, error: type[Exception]) -> None:
    assert [type(each) for each in decoded(item).errors] == [error]


class Prepared(ImagePreparation):
    """An image's preparation, but by any function."""

    def __init__(self, prepare: Callable[[bytes], torch.Tensor]) -> None:
        super().__init__(decoding())
        self._prepare = prepare

    def prepare(self, content: bytes) -> torch.Tensor:
        return self._prepare(content)


def test_an_item_whose_time_ran_out_is_not_decoded() -> None:
    never = Prepared(lambda _: pytest.fail("decoded for nobody"))
    errors = decoded(Item("image", png(0)), 0.0, never).errors
    assert [type(error) for error in errors] == [DeadlineExceeded]


def test_a_fault_of_ours_is_told_without_its_insides() -> None:
    def broken(_: bytes) -> torch.Tensor:
        raise RuntimeError("secret")

    (error,) = decoded(Item("image", png(0)), preparation=Prepared(broken)).errors
    assert isinstance(error, InternalError)
    assert "secret" not in error.detail


def test_what_waits_is_dropped_with_its_bytes_when_nobody_waits_for_it() -> None:
    gate, calls = threading.Event(), []

    def held(content: bytes) -> torch.Tensor:
        calls.append(content)
        assert gate.wait(20)
        return torch.zeros(1, 8, 8)

    sink: Any = Sink()
    decoder, preparation = Decoder(1), Prepared(held)
    running, waiting = ticket(), ticket()
    decoder.submit(sink, running, Item("image", b"first"), preparation)
    decoder.submit(sink, waiting, Item("image", b"second"), preparation)
    until(lambda: bool(calls))
    waiting.item = None  # as the batcher does when it releases a ticket
    gate.set()
    after = ticket()
    decoder.submit(sink, after, Item("image", b"third"), preparation)
    until(lambda: len(sink.examples) == 2)
    assert calls == [b"first", b"third"]
    decoder.close()


def test_the_wait_grows_with_what_is_submitted_and_an_idle_pool_is_always_asked() -> None:
    now_s = [0.0]
    decoder = Decoder(2, clock=lambda: now_s[0])
    gate = threading.Event()

    class Slow(Sink):
        def put(self, _: Ticket, example: torch.Tensor) -> None:
            assert gate.wait(20)
            now_s[0] += 10.0

    sink: Any = Slow()
    assert decoder.wait_s(100) == 0
    for _ in range(2):
        gate.set()
        decoder.submit(sink, ticket(), Item("image", png(0)), ImagePreparation(decoding()))
        until(lambda: decoder.wait_s(1) == 0)
    gate.clear()
    for _ in range(4):
        decoder.submit(sink, ticket(), Item("image", png(0)), ImagePreparation(decoding()))
    assert decoder.wait_s(10) > decoder.wait_s(1) > 0
    gate.set()
    until(lambda: decoder.wait_s(1) == 0)
    decoder.close()
