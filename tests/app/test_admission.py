"""What a batcher admits, and what it refuses at once."""

import threading

import pytest
from torch import Tensor

from app.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
)
from app.items import Item
from app.tickets import Ticket
from app.workers import Workers
from tests.app.batchers import (
    FAR_S,
    PATIENCE_S,
    Clock,
    Model,
    admit,
    admit_each,
    answers,
    batcher_of,
    cancel,
    hold,
    item,
    put,
    to_tensor,
)

pytestmark = pytest.mark.anyio


async def test_a_full_queue_refuses_at_once_and_all_or_nothing() -> None:
    model = Model()
    async with batcher_of(model, capacity=5) as batcher:
        first = await hold(model, batcher)
        second = admit(batcher, 3, FAR_S)
        with pytest.raises(Overloaded, match="4 of 5 places") as refused:
            admit(batcher, 2, FAR_S)
        assert refused.value.retry_after_s is not None
        assert batcher.open_tickets == 4
        third = admit(batcher, 1, FAR_S)
        put(batcher, [*second, *third], [1, 2, 3, 4])
        model.gate.set()
        await answers([*first, *second, *third])
        cancel(batcher, admit(batcher, 5, FAR_S))


async def test_a_full_queue_says_about_when_a_place_is_free() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock, capacity=4) as batcher:
        first = await hold(model, batcher)
        waiting = admit(batcher, 3, FAR_S)
        with pytest.raises(Overloaded) as refused:
            admit(batcher, 1, FAR_S)
        assert refused.value.free_s == pytest.approx(clock.now_s + 1)
        # Of several it is not known: fewer may be let in sooner.
        with pytest.raises(Overloaded) as refused:
            admit(batcher, 2, FAR_S)
        assert refused.value.free_s is None
        put(batcher, waiting, [1, 2, 3])
        model.gate.set()
        await answers([*first, *waiting])


async def test_places_are_free_again_after_every_kind_of_end() -> None:
    model = Model(poison=13)
    async with batcher_of(model, capacity=3) as batcher:
        tickets = admit_each(batcher, 3, FAR_S)
        put(batcher, tickets[:1], [13])
        batcher.fail(tickets[1], ValueError("undecodable"))
        cancel(batcher, tickets[2:])
        failed, undecodable, cancelled = await answers(tickets)
        assert isinstance(failed, InferenceFailed)
        assert isinstance(undecodable, ValueError)
        assert isinstance(cancelled, ClientDisconnected)
        cancel(batcher, admit(batcher, 3, FAR_S))


async def test_a_deadline_that_would_be_missed_is_refused_at_admission() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        # One runs for a second and this one takes another.
        with pytest.raises(Overloaded, match=r"expected in 2\.000 s"):
            admit(batcher, 1, clock.now_s + 1.9)
        second = admit(batcher, 1, clock.now_s + 2.1)
        with pytest.raises(Overloaded) as refused:
            admit(batcher, 1, clock.now_s + 2.9)
        assert refused.value.retry_after_s == pytest.approx(2.0)
        assert refused.value.answer_s == pytest.approx(clock.now_s + 3.0)
        put(batcher, second, [1])
        model.gate.set()
        await answers([*first, *second])


async def test_the_running_batch_counts_only_for_the_time_it_still_has() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        clock.now_s += 0.8
        second = admit(batcher, 1, clock.now_s + 1.3)
        put(batcher, second, [1])
        model.gate.set()
        await answers([*first, *second])


async def test_a_slow_spell_does_not_shut_an_idle_model_for_ever() -> None:
    clock = Clock()
    async with batcher_of(Model(), {1: 0.01}, max_batch_size=1, clock=clock) as batcher:
        batcher.curve.record(1, 500.0)
        assert batcher.curve.mean_s(1) > 10
        tickets = admit(batcher, 1, clock.now_s + 1)
        put(batcher, tickets, [1])
        assert await answers(tickets) == [1]


async def test_an_idle_model_still_refuses_what_it_was_never_fast_enough_for() -> None:
    clock = Clock()
    async with batcher_of(Model(), {1: 2.0}, max_batch_size=1, clock=clock) as batcher:
        with pytest.raises(Overloaded):
            admit(batcher, 1, clock.now_s + 1)


async def test_a_deadline_already_past_is_refused_as_such() -> None:
    clock = Clock()
    async with batcher_of(Model(), clock=clock) as batcher:
        with pytest.raises(DeadlineExceeded):
            admit(batcher, 1, clock.now_s)


async def test_what_is_to_be_decoded_counts_at_admission() -> None:
    clock, model = Clock(), Model()

    def prepare(given: Item) -> Tensor:
        clock.now_s += 30.0
        return to_tensor(given)

    async with batcher_of(model, prepare=prepare, clock=clock) as batcher:
        slow = batcher.admit(1, clock.now_s + 100)
        batcher.submit(slow, [item(0)])
        await answers(slow.tickets)
        first = await hold(model, batcher)
        waiting = batcher.admit(2, clock.now_s + 100)
        batcher.submit(waiting, [item(1), item(2)])
        # A tenth of the 30 seconds is believed of one slow item: twice that is ahead, and it takes that itself.
        with pytest.raises(Overloaded, match=r"expected in 9\.0"):
            batcher.admit(1, clock.now_s + 8)
        batcher.cancel(batcher.admit(1, clock.now_s + 10), ClientDisconnected())
        model.gate.set()
        await answers([*first, *waiting.tickets])


async def test_a_queue_delay_counts_at_admission() -> None:
    clock = Clock()
    async with batcher_of(Model(), clock=clock, delay_s=1.0) as batcher:
        with pytest.raises(Overloaded):
            admit(batcher, 1, clock.now_s + 0.5)


async def test_what_was_cancelled_while_it_ran_no_longer_counts_as_running() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        second = admit(batcher, 1, FAR_S)
        cancel(batcher, first)
        # One still runs, although nobody waits for it, and one waits: a third is two seconds away, and its own.
        with pytest.raises(Overloaded, match=r"expected in 3\.000 s"):
            admit(batcher, 1, clock.now_s + 2.9)
        cancel(batcher, second)


async def test_texts_too_unlike_to_go_together_count_as_so_many_batches() -> None:
    clock = Clock()

    class Slow(Model):
        def __call__(self, examples_N1: Tensor) -> Tensor:
            found = super().__call__(examples_N1)
            clock.now_s += 1.0
            return found

    # Of like length, four would take no longer than one.
    model, curve_s = Slow(), dict.fromkeys((1, 2, 4), 1.0)
    async with batcher_of(model, curve_s, max_batch_size=4, clock=clock, length=int) as batcher:

        async def hold_twelve_behind_one() -> list[Ticket]:
            first = await hold(model, batcher)
            behind = admit_each(batcher, 12, FAR_S)
            put(batcher, behind, [3**power for power in range(12)])
            return [*first, *behind]

        unlike = await hold_twelve_behind_one()
        model.gate.set()
        await answers(unlike)
        clock.now_s += 600.0  # That the first were expected too soon is forgotten.
        again = await hold_twelve_behind_one()
        # One runs for a second, each of the twelve takes another, and so does this one.
        with pytest.raises(Overloaded, match=r"expected in 14\.000 s"):
            admit(batcher, 1, clock.now_s + 13.9)
        model.gate.set()
        await answers(again)


async def test_less_is_admitted_where_work_takes_longer_than_predicted() -> None:
    clock = Clock()

    class Stepped(Model):
        """Begins each batch at once, and ends it when a step is made."""

        step = threading.Semaphore(0)

        def __call__(self, examples_N1: Tensor) -> Tensor:
            found = super().__call__(examples_N1)
            assert self.step.acquire(timeout=PATIENCE_S)
            return found

    async with batcher_of(model := Stepped(), {1: 1.0}, max_batch_size=1, clock=clock) as batcher:

        async def take_longer(ticket: Ticket) -> None:
            clock.now_s += 1.5
            model.step.release()
            await answers([ticket])

        first = await hold(model, batcher)
        behind = admit_each(batcher, 4, FAR_S)
        put(batcher, behind, [1, 2, 3, 4])
        model.gate.set()
        await take_longer(first[0])
        for ticket in behind:
            await model.is_running()  # Until it is, its time has not begun to count.
            await take_longer(ticket)
        first = await hold(model, batcher)
        # By the curve alone, which follows by and by, the one that runs and this one take 2.7 s.
        with pytest.raises(Overloaded, match=r"the answer is expected in 4\.0"):
            admit(batcher, 1, clock.now_s + 3.5)
        model.gate.set()
        await take_longer(first[0])
        cancel(batcher, admit(batcher, 1, clock.now_s + 1.1))


async def test_a_light_model_is_admitted_and_answered_past_another() -> None:
    clock, heavy, light = Clock(), Model(), Model()
    workers = Workers(1, clock=clock).start()
    async with (
        batcher_of(heavy, {1: 10.0}, max_batch_size=1, clock=clock, shared=workers) as behind,
        batcher_of(light, {1: 0.001}, max_batch_size=1, clock=clock, shared=workers, prepare=to_tensor) as batcher,
    ):
        held = await hold(heavy, behind)
        order = batcher.admit(1, clock.now_s + 0.1)
        batcher.submit(order, [item(7)])
        assert await answers(order.tickets) == [7]
        heavy.gate.set()
        await answers(held)
    workers.close()


async def test_a_batch_that_cannot_be_done_in_time_is_not_begun_while_others_wait() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        late, other = admit(batcher, 1, clock.now_s + 2.5), admit(batcher, 1, FAR_S)
        put(batcher, [*late, *other], [1, 2])
        clock.now_s += 1.6  # The first took longer than predicted, and 0.9 s are left.
        model.gate.set()
        _, error, answer = await answers([*first, *late, *other])
        assert isinstance(error, DeadlineExceeded)
        assert answer == 2
        assert model.batches == [[0], [2]]


async def test_the_last_that_waits_is_tried_however_little_time_is_left() -> None:
    clock, model = Clock(), Model()
    async with batcher_of(model, {1: 1.0}, max_batch_size=1, clock=clock) as batcher:
        first = await hold(model, batcher)
        last = admit(batcher, 1, clock.now_s + 2.5)
        model.gate.set()
        await answers(first)
        clock.now_s += 1.6
        put(batcher, last, [1])
        assert await answers(last) == [1]
