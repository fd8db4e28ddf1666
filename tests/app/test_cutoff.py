import asyncio

import pytest

from app.cutoff import Cutoff

pytestmark = pytest.mark.anyio


class Reason(Exception):
    pass


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_is_cut_off_is_cancelled_and_the_reason_raised() -> None:
    with pytest.raises(Reason), Cutoff() as cutoff:
        asyncio.get_running_loop().call_soon(cutoff.cut, Reason)
        await forever()
    # The task is none the worse for it.
    await asyncio.sleep(0)


async def test_what_is_not_cut_off_is_left_alone() -> None:
    with Cutoff():
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), Cutoff():
        raise ValueError("own")


async def test_only_the_first_reason_counts() -> None:
    with pytest.raises(Reason), Cutoff() as cutoff:
        asyncio.get_running_loop().call_soon(cutoff.cut, Reason)
        asyncio.get_running_loop().call_soon(cutoff.cut, KeyError)
        await forever()


async def test_a_task_that_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    entered = asyncio.Event()

    async def work() -> None:
        with Cutoff() as cutoff:
            asyncio.get_running_loop().call_soon(cutoff.cut, Reason)
            entered.set()
            await forever()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cut_off_too_late_does_nothing() -> None:
    with Cutoff() as cutoff:
        pass
    cutoff.cut(Reason)
    await asyncio.sleep(0)
