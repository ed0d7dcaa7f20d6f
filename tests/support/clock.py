"""A clock that stands until the test moves it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from agents.runtime.clock import Waiters

__all__ = ["FakeClock", "settle"]

START = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 50


async def settle(rounds: int = ROUNDS) -> None:
    """Let every task that can run without time or input run, that many loop rounds deep."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeClock:
    """Policy and network time, each moved by hand and independent of the other.

    `advance` and `advance_network` stop at every date somebody waits for, so that a
    periodic task fires as often as it would in life. `move`, `move_network` go at once
    and let nobody run. `jump` sets the wall clock and leaves `elapsed` alone, which
    is what an administrator, NTP or a restored snapshot does.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._elapsed = 1000.0
        self._epoch = start  # network time is kept as a date: one kind of waiter is enough
        self._network = start
        self._waiters = Waiters()
        self._sleepers = Waiters()
        self.holds = 0

    def now(self) -> datetime:
        return self._now

    def elapsed(self) -> float:
        return self._elapsed

    def monotonic(self) -> float:
        return (self._network - self._epoch).total_seconds()

    async def wait_until(self, date: datetime) -> None:
        if date <= self._now:
            await asyncio.sleep(0)
        else:
            await self._waiters.add(date)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            await self._sleepers.add(self._network + timedelta(seconds=seconds))

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    @property
    def due(self) -> datetime | None:
        """The earliest policy date that somebody waits for."""
        return self._waiters.earliest()

    @property
    def due_network(self) -> float | None:
        """The earliest moment of network time that somebody sleeps for."""
        date = self._sleepers.earliest()
        return None if date is None else (date - self._epoch).total_seconds()

    async def advance(self, delta: timedelta) -> None:
        """Pass policy time, with a stop at every date that is awaited on the way."""
        end = self._now + delta
        await settle()
        while (date := self._waiters.earliest()) is not None and date <= end:
            self.move(max(date - self._now, timedelta()))
            await settle()
        self.move(end - self._now)
        await settle()

    async def advance_network(self, seconds: float) -> None:
        """Pass network time, with a stop at every moment that is slept for on the way."""
        end = self._network + timedelta(seconds=seconds)
        await settle()
        while (date := self._sleepers.earliest()) is not None and date <= end:
            self.move_network((date - self._network).total_seconds())
            await settle()
        self.move_network((end - self._network).total_seconds())
        await settle()

    def move(self, delta: timedelta) -> None:
        """Pass policy time at once; those who are due run when the loop next does."""
        if delta < timedelta():
            raise ValueError("time does not go back; jump() sets the wall clock")
        self._now += delta
        self._elapsed += delta.total_seconds()
        self._waiters.release(self._now)

    def move_network(self, seconds: float) -> None:
        """Pass network time at once."""
        if seconds < 0:
            raise ValueError("network time does not go back")
        self._network += timedelta(seconds=seconds)
        self._sleepers.release(self._network)

    def jump(self, delta: timedelta) -> None:
        """Set the wall clock forward or back; no time passes."""
        self._now += delta
        self._waiters.release(self._now)
