"""The clock of a program that runs in a lab.

It reads policy time from the shared page and keeps one SOCK_SEQPACKET to the
conductor (`agents.lab.time`), which moves that time:

    report, to the conductor    earliest due date (µs, or NEVER), holds,
                                start of the youngest hold (ns), last wake answered
    wake, from the conductor    its number: time stands at (or has passed) that date

The rules by which nothing is due while nobody is looking:

1. A hold is reported before `__enter__` returns, so before the first byte it
   covers can leave. Everything else is reported once a loop iteration at most.
2. What makes time free to move (a wake answered, a hold given back, a later due
   date) is reported only after the loop has gone round SETTLE times without more
   of it: the tasks that were resumed have then taken their own holds and named
   their next dates. It is not put off for more than PATIENCE rounds.
3. There are no timers on policy dates and no polling: a waiter is resumed by a wake.
4. A new clock holds, as the conductor has assumed since the process was spawned.
   `ready` gives that hold back, when the program is up and waits for its dates.

Work that a wake starts outside the loop (a thread, a process) needs a hold of its own.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final, Self

from agents.lab.page import Page
from agents.runtime.clock import Waiters, monotonic_ns

__all__ = ["NEVER", "REPORT", "WAKE", "LabClock", "from_micros", "to_micros"]

NEVER: Final = 2**64 - 1
REPORT: Final = struct.Struct("<QQQQ")
WAKE: Final = struct.Struct("<Q")
SETTLE: Final = 32
"""Loop rounds: deeper than our tasks, queues and groups are nested; about 0.1 ms."""
PATIENCE: Final = 256
FRESH_NS: Final = 30_000_000_000
"""A younger hold than this, already reported, speaks for one taken now."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(date: datetime) -> int:
    """Return an aware date as µs since 1970, exactly."""
    return (date - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return µs since 1970 as an aware UTC date."""
    return EPOCH + timedelta(microseconds=micros)


class LabClock:
    """A `Clock` whose policy time is moved by the lab's conductor.

    If the lab is gone, policy time stands for ever, and `on_lost` is called once.
    Not safe for use by several threads.

    Args:
        page: policy time.
        sock: this program's end of the socket that `Conductor.enlist` returned.
        on_lost: called in the loop when the lab has closed its end.
    """

    def __init__(
        self, page: Page, sock: socket.socket, *, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._page = page
        self._socket = sock
        self._on_lost = on_lost
        self._waiters = Waiters()
        self._holds: dict[int, int] = {}  # start of each, ns, in the order taken
        self._numbers = count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost = False
        self._woken = 0
        self._answered = 0
        self._reported: tuple[int, int, int, int] | None = None
        self._rounds = 0  # loop rounds until the next report; 0: none is on its way
        self._patience = 0
        self._starting: int | None = self._take()

    @classmethod
    def attach(
        cls, place: int | Path, socket_fd: int, *, on_lost: Callable[[], None] | None = None
    ) -> Self:
        """Return the clock of a child, from what it inherited; owns `socket_fd` from then on."""
        return cls(Page.attach(place), socket.socket(fileno=socket_fd), on_lost=on_lost)

    def now(self) -> datetime:
        """Return the lab's policy time."""
        return from_micros(self._micros())

    def elapsed(self) -> float:
        """Return the policy seconds since the lab began."""
        return (self._micros() - self._page.origin) / 1e6

    def monotonic(self) -> float:
        """Return network time, which the lab leaves alone."""
        return monotonic_ns() / 1e9

    async def sleep(self, seconds: float) -> None:
        """Pass `seconds` of network time."""
        await asyncio.sleep(seconds)

    async def wait_until(self, date: datetime) -> None:
        """Return when policy time is at or past `date`."""
        self._join()
        if date <= self.now():
            await asyncio.sleep(0)
            return
        future = self._waiters.add(date)
        self._report_soon()
        try:
            await future
        finally:
            self._report_soon()

    def hold(self) -> AbstractContextManager[None]:
        """Return a context in which policy time neither leaps nor, for long, runs fast."""
        return self._held()

    def ready(self) -> None:
        """Give back the hold that every program starts with; harmless when repeated."""
        if self._starting is not None:
            self._give_back(self._starting)
            self._starting = None

    def close(self) -> None:
        """Leave the lab: it drops this program as if it had exited."""
        self._leave()
        self._socket.close()
        self._page.close()

    def _micros(self) -> int:
        leg = self._page.read()  # a leg that is replaced by now ended where the next begins
        return leg.at(monotonic_ns())

    @contextmanager
    def _held(self) -> Iterator[None]:
        number = self._take()
        try:
            yield
        finally:
            self._give_back(number)

    def _take(self) -> int:
        number = next(self._numbers)
        self._holds[number] = start = monotonic_ns()
        reported = self._reported
        if reported is None or reported[1] == 0 or start - reported[2] > FRESH_NS:
            self._report()
        else:
            self._report_soon()
        return number

    def _give_back(self, number: int) -> None:
        del self._holds[number]
        self._report_soon()

    def _join(self) -> None:
        """Listen for wakes, from the first time that a loop runs us."""
        if self._loop is None and not self._lost:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._on_wake)

    def _leave(self) -> None:
        self._lost = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._loop = None

    def _on_wake(self) -> None:
        while True:
            try:
                packet = self._socket.recv(WAKE.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if len(packet) != WAKE.size:
                self._leave()
                if self._on_lost is not None:
                    self._on_lost()
                return
            (self._woken,) = WAKE.unpack(packet)
        self._waiters.release(self.now())
        self._report_soon()
        self._patience = PATIENCE  # those just resumed have all of it

    def _report_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._report()  # no loop, so no task that could still want a word
            return
        self._join()
        if self._rounds == 0:
            self._patience = PATIENCE
            loop.call_soon(self._round)
        self._rounds = SETTLE

    def _round(self) -> None:
        self._rounds -= 1
        self._patience -= 1
        if self._rounds and self._patience and self._loop is not None:
            self._loop.call_soon(self._round)
            return
        self._rounds = 0
        self._answered = self._woken
        self._report()

    def _report(self) -> None:
        due = self._waiters.earliest()
        report = (
            NEVER if due is None else to_micros(due),
            len(self._holds),
            next(reversed(self._holds.values())) if self._holds else 0,
            self._answered,
        )
        if self._lost or report == self._reported:
            return
        self._reported = report
        try:
            # May block while the lab is busy: a report is never dropped, and the lab
            # never blocks on us. MSG_NOSIGNAL: a lab that is gone shows as EOF.
            self._socket.send(REPORT.pack(*report), socket.MSG_NOSIGNAL)
        except OSError:
            self._lost = self._loop is None  # with a loop, the reader finds out
