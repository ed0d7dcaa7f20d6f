"""One timer of the loop for the deadlines of all its links.

A timer of a loop weighs about half a KiB, and to set one and take it back costs as much as a
system call. The deadlines of a link are seconds and minutes, and one that comes a little late does
no harm: so they are kept by the `TICK` in which they are due, and the loop has one timer for the
first of those.
"""

import asyncio
import heapq
from contextvars import copy_context
from typing import Final, Protocol

__all__ = ["TICK", "Deadlines", "Timed"]

TICK: Final = 0.125
"""Seconds by which a deadline may be late."""


class Timed(Protocol):
    """Who has a deadline."""

    def ring(self) -> None:
        """It has come."""
        ...


class Deadlines:
    """What is due on one event loop, by its network time. Not safe for use by several threads."""

    __slots__ = ("_context", "_due", "_ringing", "_ticks", "_timer", "_timer_tick")

    def __init__(self) -> None:
        self._due: dict[int, dict[Timed, None]] = {}
        self._ticks: list[int] = []
        """The keys of `_due`, as a heap."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0
        self._ringing = False
        self._context = copy_context()  # nobody's who adds: a deadline is not what he works on

    def __len__(self) -> int:
        """Deadlines that are kept."""
        return sum(map(len, self._due.values()))

    def add(self, timed: Timed, seconds: float) -> int:
        """Have it ring once after so many seconds: never earlier, and up to a `TICK` late.

        Returns:
            What `discard` has to be told.
        """
        loop = asyncio.get_running_loop()
        tick = int((loop.time() + max(seconds, 0.0)) / TICK) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = {}
            heapq.heappush(self._ticks, tick)
            self._arm(loop)
        due[timed] = None
        return tick

    def discard(self, timed: Timed, tick: int) -> None:
        """Forget what `add` has taken, if it has not rung."""
        due = self._due.get(tick)
        if due is not None:
            due.pop(timed, None)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the timer ring for the first of them."""
        if not self._ticks or self._ringing:
            return  # it is armed when all have rung
        first = self._ticks[0]
        if self._timer is not None:
            if self._timer_tick <= first:
                return
            self._timer.cancel()
        self._timer_tick = first
        self._timer = loop.call_at(first * TICK, self._ring, context=self._context)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer, self._ringing = None, True
        now = loop.time()
        while self._ticks and self._ticks[0] * TICK <= now:
            tick = heapq.heappop(self._ticks)
            due = self._due[tick]  # what rings may take back another, or add one
            while due:
                timed, _ = due.popitem()
                try:
                    timed.ring()
                except Exception as exc:
                    loop.call_exception_handler({"message": "a deadline failed", "exception": exc})
            del self._due[tick]
        self._ringing = False
        self._arm(loop)
