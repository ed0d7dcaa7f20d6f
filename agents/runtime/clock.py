"""The two kinds of time, and the only file that reads a clock.

*Policy time* is what certificates, the ledger and every date in a log speak of:
`Clock.now` (aware UTC) and `Clock.elapsed` (seconds that never go back and that
count a suspended machine). A lab moves it by hours at a time.

*Network time* is what deadlines, back-off and probes speak of:
`Clock.monotonic` and `Clock.sleep`. Nobody ever accelerates it.

Rules:

1. A policy date is waited for with `Clock.wait_until` and with nothing else; a
   date computed into a number of seconds to sleep would not move with the lab,
   and would be wrong after the machine was suspended or its clock was set.
2. `wait_until` never returns early: afterwards, `now()` is at or past the date.
3. Work in network time that a policy date started, or that a peer waits for,
   runs under `Clock.hold`: taken before the first byte leaves, kept until the
   application's answer. Outside a lab a hold does nothing.
"""

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

__all__ = ["MAX_PAUSE", "Clock", "SystemClock", "Waiters", "look_again", "monotonic_ns"]

MAX_PAUSE = 60.0
"""Seconds after which a sleeper looks at the wall clock again.

The loop's timers stand while the machine is suspended and know nothing of a wall
clock that was set, so this bounds how late a renewal can be after either.
"""

SET_BACK = 60.0
"""Seconds by which the wall clock has to fall behind to count as set back, and not as slewed."""

MIN_PAUSE = 0.001
"""Seconds; the loop's resolution. Less would be polling while the clock is slewed."""


class Clock(Protocol):
    """Both kinds of time, as a port."""

    def now(self) -> datetime:
        """Return policy time: an aware UTC date."""
        ...

    def elapsed(self) -> float:
        """Return policy seconds since some fixed moment; never goes back, counts suspend."""
        ...

    def monotonic(self) -> float:
        """Return network time: seconds since some fixed moment, on the loop's own scale."""
        ...

    async def wait_until(self, date: datetime) -> None:
        """Return when policy time is at or past `date`; gives way once even if it already is."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pass `seconds` of network time."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Return a context that says: at work in network time. Holds nest and overlap."""
        ...


async def look_again(clock: Clock, date: datetime) -> None:
    """Return at `date`, or within `MAX_PAUSE` after the wall clock was set back.

    For a date that was computed from `now()`, or from what was made by it: if the clock was
    ahead then, perhaps by years, whoever waits computes it again with the right one.
    """
    began, at = clock.elapsed(), clock.now()
    waiting = asyncio.ensure_future(clock.wait_until(date))
    try:
        while not waiting.done():
            pause = asyncio.ensure_future(clock.sleep(MAX_PAUSE))
            try:
                await asyncio.wait({waiting, pause}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
            if clock.now() - at < timedelta(seconds=clock.elapsed() - began - SET_BACK):
                return
    finally:
        waiting.cancel()


def monotonic_ns() -> int:
    """Return network time in nanoseconds, on the scale that all processes of a machine share."""
    return time.monotonic_ns()


class SystemClock:
    """The machine's clocks.

    `wait_until` follows the wall clock when it is set or slewed, and notices
    within `MAX_PAUSE` that the machine was suspended.

    Args:
        wall: reads the wall clock in seconds since 1970.
        pause: passes seconds of network time.
    """

    __slots__ = ("_pause", "_wall")

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._wall = wall
        self._pause = pause

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC date."""
        return datetime.fromtimestamp(self._wall(), UTC)

    def elapsed(self) -> float:
        """Return the seconds since boot, those spent suspended included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    # CLOCK_MONOTONIC, which is what event loops use too. Asked for each frame: the function itself.
    monotonic = staticmethod(time.monotonic)

    async def wait_until(self, date: datetime) -> None:
        """Return when the wall clock is at or past `date`."""
        await self._pause(0)  # a date in the past must not let a caller starve the loop
        while (remaining := date - self.now()) > timedelta():
            await self._pause(min(max(remaining.total_seconds(), MIN_PAUSE), MAX_PAUSE))

    async def sleep(self, seconds: float) -> None:
        """Pass `seconds` of network time."""
        await self._pause(seconds)

    def hold(self) -> AbstractContextManager[None]:
        """Return a context that does nothing: no one moves this clock."""
        return nullcontext()


class Waiters:
    """Who waits for which date; for the clocks whose time is moved by somebody else.

    Not safe for concurrent use.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = count()

    def add(self, date: datetime) -> asyncio.Future[None]:
        """Return a future that `release` resolves at `date`; cancel it to wait no longer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (date, next(self._order), future))
        return future

    def earliest(self) -> datetime | None:
        """Return the earliest date that somebody still waits for."""
        while self._heap and self._heap[0][2].done():
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def release(self, now: datetime) -> None:
        """Resolve everything due at `now`, in the order of the dates."""
        while (date := self.earliest()) is not None and date <= now:
            heapq.heappop(self._heap)[2].set_result(None)
