"""The clocks of simulated machines: all of one time, and each set as wrong as somebody likes.

Network time is the loop's. Policy time is the same, plus what the whole world was leapt ahead
(`World.leap`: nothing runs meanwhile, as if every machine had been suspended), plus what the
machine's own clock is wrong by.
"""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta

from agents.runtime.clock import MIN_PAUSE, Waiters
from tests.simulation.loop import SimLoop

__all__ = ["Era", "SimClock"]

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Era:
    """Policy time as it really is in this world."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.leapt = timedelta()
        self.clocks: list[SimClock] = []

    def now(self) -> datetime:
        """Policy time."""
        return BEGIN + self.leapt + timedelta(seconds=self.loop.now)

    def leap(self, span: timedelta) -> None:
        """Have this much policy time pass at once, everywhere."""
        self.leapt += span
        for clock in self.clocks:
            clock.look()


class SimClock:
    """One machine's clock; `agents.runtime.clock.Clock`."""

    def __init__(self, era: Era) -> None:
        self.wrong = timedelta()
        self._era = era
        self._waiters = Waiters()
        self._timer: asyncio.TimerHandle | None = None
        era.clocks.append(self)

    def now(self) -> datetime:
        """Policy time as this machine believes it to be."""
        return self._era.now() + self.wrong

    def elapsed(self) -> float:
        """Policy seconds since the world began; nobody sets them."""
        return self._era.leapt.total_seconds() + self._era.loop.now

    def monotonic(self) -> float:
        """Network time."""
        return self._era.loop.now

    async def wait_until(self, date: datetime) -> None:
        """Return when this clock shows `date`."""
        if date <= self.now():
            await asyncio.sleep(0)
            return
        waiting = self._waiters.add(date)
        self.look()
        await waiting

    async def sleep(self, seconds: float) -> None:
        """Pass network time."""
        await asyncio.sleep(seconds)

    def hold(self) -> AbstractContextManager[None]:
        """Nothing: time does not pass while anything can run."""
        return nullcontext()

    def set_wrong(self, by: timedelta) -> None:
        """Set this clock, wrong by so much."""
        self.wrong = by
        self.look()

    def look(self) -> None:
        """Wake who is due, and see to it that the next one is woken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiters.release(self.now())
        due = self._waiters.earliest()
        if due is not None:
            pause = max((due - self.now()).total_seconds(), MIN_PAUSE)
            self._timer = self._era.loop.call_later(pause, self.look)
