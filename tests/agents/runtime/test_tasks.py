"""Work beside the rest: what ends first, what comes in time, and what is said of a failure."""

import asyncio

import pytest

from agents.runtime import logs
from agents.runtime.errors import UnavailableError, UnwritableError
from agents.runtime.tasks import Tasks, first_of, within
from agents.runtime.trouble import Trouble
from tests.support.clock import FakeClock, settle
from tests.support.logs import logged


async def never(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("never")


async def fail(error: Exception) -> None:
    raise error


class TestFirstOf:
    async def test_ends_the_others(self) -> None:
        ended: list[str] = []
        await first_of(never(ended), asyncio.sleep(0), never(ended))
        assert ended == ["never", "never"]

    async def test_raises_what_the_first_failed_with(self) -> None:
        ended: list[str] = []
        with pytest.raises(UnavailableError, match="gone"):
            await first_of(never(ended), fail(UnavailableError("gone")))
        assert ended == ["never"]

    async def test_that_is_cancelled_leaves_nothing_behind(self) -> None:
        ended: list[str] = []
        waiting = asyncio.ensure_future(first_of(never(ended), never(ended)))
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert ended == ["never", "never"]


class TestWithin:
    async def test_an_event_that_comes(self) -> None:
        event = asyncio.Event()
        waiting = asyncio.ensure_future(within(60.0, event))
        await settle()
        event.set()
        assert await waiting

    async def test_an_event_that_does_not(self) -> None:
        assert not await within(0.0, asyncio.Event())


class TestTasks:
    async def test_a_disk_that_is_full_is_a_line_with_what_to_do(self) -> None:
        tasks = Tasks(FakeClock(), logs.get_logger())
        with logged() as lines:
            tasks.spawn(fail(UnwritableError("no space left on device", "free some space")))
            await settle()
        assert [(e["event"], e["hint"]) for e in lines] == [("task.unavailable", "free some space")]

    async def test_a_fault_of_ours_ends_nothing_else(self) -> None:
        clock = FakeClock()
        tasks = Tasks(clock, logs.get_logger())
        with logged() as lines:
            tasks.spawn(fail(KeyError("x")))
            await settle()
        assert [e["event"] for e in lines] == ["task.failed"]
        assert clock.holds == 0


def test_a_trouble_is_news_once_and_when_it_comes_back() -> None:
    trouble = Trouble()
    one, two = UnavailableError("one"), UnavailableError("two")
    assert [trouble.is_news(e) for e in (one, one, two, two, one)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    trouble.over()
    assert trouble.is_news(one)


def test_the_same_trouble_is_no_news_for_being_later() -> None:
    trouble = Trouble()
    assert trouble.is_news(UnavailableError("our clock says 2026-01-01T00:00:00+00:00"))
    assert not trouble.is_news(UnavailableError("our clock says 2026-01-01T00:00:02.5+00:00"))
    assert trouble.is_news(UnavailableError("the other clock says 2026-01-01T00:00:02+00:00"))
