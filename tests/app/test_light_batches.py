"""Batches of so little work that the event loop runs them itself, and those that it must not."""

import io
import threading
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor

from app.batching import Batcher
from app.errors import InferenceFailed
from app.items import Item, is_tiny
from app.tickets import Ticket
from tests.app.batchers import FAR_S, Clock, Model, answers, batcher_of

pytestmark = pytest.mark.anyio

LIGHT_S = {1: 0.0001, 8: 0.0005}


def jpeg(size: tuple[int, int] = (32, 32), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, "JPEG", **options)
    return file.getvalue()


class Watched(Model):
    """A model that knows which threads it ran on, and prepares items to their place in line."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__(poison)
        self.here: list[bool] = []
        self._loop_thread = threading.get_ident()
        self._next = iter(range(1_000))

    def prepare(self, _item: Item) -> Tensor:
        return torch.tensor([next(self._next)])

    def __call__(self, examples_N1: Tensor) -> Tensor:
        self.here.append(threading.get_ident() == self._loop_thread)
        return super().__call__(examples_N1)


def submit(batcher: Batcher, items: list[Item]) -> list[Ticket]:
    """Each as a request of its own, all in one round of the loop."""
    tickets = []
    for item in items:
        order = batcher.admit(1, FAR_S)
        batcher.submit(order, [item])
        tickets += order.tickets
    return tickets


async def test_a_whole_batch_and_what_came_with_it_are_run_by_the_loop() -> None:
    model = Watched()
    async with batcher_of(model, LIGHT_S, prepare=model.prepare, bounded=True) as batcher:
        tickets = submit(batcher, [Item("image", jpeg())] * 19)
        assert await answers(tickets) == list(range(19))
        assert batcher.open_tickets == 0
    assert [len(batch) for batch in model.batches] == [8, 8, 3]
    assert all(model.here)


async def test_less_than_a_whole_batch_is_run_by_a_thread() -> None:
    model = Watched()
    async with batcher_of(model, LIGHT_S, prepare=model.prepare, bounded=True) as batcher:
        assert sorted(await answers(submit(batcher, [Item("image", jpeg())] * 7))) == list(range(7))
    assert not any(model.here)


async def test_what_is_left_over_waits_to_be_filled_where_that_is_wanted() -> None:
    model, clock = Watched(), Clock()
    async with batcher_of(
        model, LIGHT_S, prepare=model.prepare, bounded=True, delay_s=1.0, clock=clock
    ) as batcher:
        tickets = submit(batcher, [Item("image", jpeg())] * 9)
        await answers(tickets[:8])
        later = submit(batcher, [Item("image", jpeg())] * 7)
        assert sorted(await answers([*tickets[8:], *later])) == list(range(8, 16))
    assert [len(batch) for batch in model.batches] == [8, 8]


async def test_between_two_of_them_the_loop_does_other_things() -> None:
    model = Watched()
    async with batcher_of(model, LIGHT_S, prepare=model.prepare, bounded=True) as batcher:
        tickets = submit(batcher, [Item("image", jpeg())] * 16)
        seen: list[int] = []
        batcher._loop.call_soon(lambda: seen.append(len(model.batches)))
        await answers(tickets)
    assert seen == [1]


@pytest.mark.parametrize(
    ("curve_s", "bounded", "item"),
    [
        (LIGHT_S, False, Item("image", jpeg())),
        ({1: 0.001, 8: 0.0041}, True, Item("image", jpeg())),
        (LIGHT_S, True, Item("image", jpeg((200, 200)))),
        (LIGHT_S, True, Item("text", b"a" * 5_000)),
    ],
    ids=["may hang", "takes long", "large image", "long text"],
)
async def test_everything_else_is_run_by_a_thread(curve_s: dict[int, float], bounded: bool, item: Item) -> None:
    model = Watched()
    async with batcher_of(model, curve_s, prepare=model.prepare, bounded=bounded) as batcher:
        assert len(await answers(submit(batcher, [item] * 16))) == 16
    assert not any(model.here)


async def test_an_item_that_fails_fails_alone_there_too() -> None:
    model = Watched(poison=3)
    async with batcher_of(model, LIGHT_S, prepare=model.prepare, bounded=True) as batcher:
        tickets = submit(batcher, [Item("image", jpeg())] * 8)
        found = await answers(tickets)
        assert batcher.open_tickets == 0
    assert [n for n, each in enumerate(found) if isinstance(each, InferenceFailed)] == [3]
    assert [each for each in found if not isinstance(each, InferenceFailed)] == [0, 1, 2, 4, 5, 6, 7]
    assert all(model.here)


def many_scans() -> bytes:
    # A scan more, again and again: each would have a decoder pass over the image.
    whole = jpeg(progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * 20 + whole[-2:]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "tiny"),
    [
        (jpeg, True),
        (lambda: jpeg((64, 64)), True),
        (lambda: jpeg((64, 65)), False),
        (lambda: jpeg() + bytes(5_000), False),
        (many_scans, False),
        (lambda: jpeg()[:20], False),
        (png, False),
        (lambda: b"no image", False),
    ],
)
def test_only_what_is_decoded_in_microseconds_whatever_it_is_counts_as_tiny(
    make: Callable[[], bytes], tiny: bool
) -> None:
    assert is_tiny(Item("image", make())) == tiny
    assert not is_tiny(Item("image", make(), base64=True))
