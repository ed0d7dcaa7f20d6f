"""The conductor: moves the lab's policy time, and never past what anybody waits for.

Each program has told the conductor its earliest due date and whether it is at work
in network time (a *hold*); see `agents.lab.clock`. From that, and from the date the
script wants to reach, follows the next leg. In this order, before each leg:

1. All sockets are read until none has anything left. Whoever hands work on takes
   its hold before it answers, so at the moment when nothing is left to read, work
   that is in progress shows as a hold of somebody.
2. Whoever is due is woken. Time stands until it has reported again: no leg begins.
   One that does not answer is named by `Conductor.standing`; one that exited (end
   of its socket) is dropped.
3. p1 is the earliest due date of all, and not past the target.
4. The script has no target: rate 1, as in life. It is at work with commands, an
   enrolment, a look at the state, and policy time passes beside it as it would.
5. Somebody holds, or the script wants to show this stretch: `rate`, the cap, in legs
   of STRIDE of network time, so that the end of the work is noticed soon. A hold
   older than STALE no longer slows: it is something that waits, not works.
6. Nobody holds: one leap to p1.

A date that is reported while a leg is under way and that lies inside it is woken
when the leg gets there; the leg itself is never cut short.

So the rate is for show and for the sake of network deadlines. That nothing fires
late follows from 2 and 3, whatever the rate.

    page = Page.create(to_micros(start), monotonic_ns())
    async with Conductor(page, rate=300) as conductor:
        end = conductor.enlist("client-05")     # give it and page.fd to the child, close it here
        await conductor.advance(timedelta(days=7))
        await conductor.settled()
"""

import asyncio
import select
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

from agents.lab.clock import NEVER, REPORT, WAKE, from_micros, to_micros
from agents.lab.page import LEAP, Leg, Page, milli
from agents.runtime.clock import monotonic_ns

__all__ = ["Conductor", "Progress", "Target", "plan"]

STRIDE: Final = 50_000_000
"""Length of a leg at rate 1 or at the cap, ns of network time."""

STALE: Final = 60_000_000_000
"""Age at which a hold no longer slows, ns of network time."""

LIFE: Final = milli(1)


@dataclass(frozen=True, slots=True)
class Target:
    """The date that the script wants to reach."""

    date: int
    """µs since 1970."""
    show: bool = False
    """Whether to go there at the cap, for an audience, instead of leaping."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How time moves from here on, for a display."""

    now: datetime
    until: datetime
    """Where the leg that begins here ends; `now` when time stands."""
    target: datetime | None
    rate: float
    """Policy time per network time: 0 when time stands, infinite when it leaps."""
    holding: tuple[str, ...]
    """The programs at work in network time."""
    standing: tuple[str, ...]
    """The programs that were woken and have not answered: they make time stand."""


@dataclass(slots=True)
class Program:
    """What the conductor knows of one program. It starts with a hold."""

    name: str
    since: int
    """Start of its youngest hold, ns of network time."""
    holds: int = 1
    due: int = NEVER
    """The earliest date it waits for, µs since 1970."""
    wakes: int = 0
    woken_at: int = 0
    """Network time, ns, of the last of its wakes."""
    answered: int = 0
    """The number of the last wake it has answered."""

    @property
    def owes(self) -> bool:
        """Whether it was woken and has not reported since."""
        return self.answered < self.wakes

    def slows(self, moment: int) -> bool:
        """Whether it is at work in network time, and not for too long already."""
        return self.holds > 0 and moment - self.since < STALE


def plan(
    now: int, moment: int, programs: Iterable[Program], target: Target | None, cap: int
) -> Leg | None:
    """Return the leg that begins at policy time `now` (µs); None: time stands.

    Args:
        now: where the leg before ended.
        moment: network time, ns.
        programs: all of them, with everything read that they sent.
        target: what the script asks for, later than `now`.
        cap: the rate, in thousandths, while somebody is at work or looks on.
    """
    limit = NEVER if target is None else target.date
    slow = False
    for program in programs:
        if program.owes or program.due <= now:
            return None
        limit = min(limit, program.due)
        slow = slow or program.slows(moment)
    if target is None:
        rate = LIFE
    elif slow or target.show:
        rate = cap
    else:
        return Leg(moment, now, limit, LEAP)
    return Leg(moment, now, min(limit, now + STRIDE * rate // 1_000_000), rate)


class Conductor:
    """Moves policy time on a page for the programs that it has enlisted.

    An asynchronous context manager; time moves inside it. One script at a time.

    Args:
        page: of which this process is the writer.
        rate: the cap: policy time per network time while somebody is at work.
        patience: network seconds after which one that does not answer is named.
        progress: called at the start of each leg and when somebody is named. A week
            has thousands of legs: a display draws the newest at its own pace.
    """

    def __init__(
        self,
        page: Page,
        *,
        rate: float = 300.0,
        patience: float = 1.0,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._page = page
        self._leg = page.read()
        self._cap = milli(rate)
        self._patience = round(patience * 1e9)
        self._progress = progress
        self._sockets: dict[int, socket.socket] = {}  # our ends, by descriptor
        self._programs: dict[int, Program] = {}  # likewise
        self._poll = select.epoll()
        self._changed = asyncio.Event()
        self._target: Target | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._settling: list[asyncio.Future[None]] = []
        self._named: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Nested: this one descriptor is readable when any program has reported.
        asyncio.get_running_loop().add_reader(self._poll, self._changed.set)
        self._task = asyncio.create_task(self._run(), name="lab time")
        self._task.add_done_callback(self._fail)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._poll)
        assert self._task is not None  # __aenter__ made it
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            for fd in list(self._sockets):
                self._drop(fd)
            self._poll.close()

    def now(self) -> datetime:
        """Return policy time."""
        return from_micros(self._leg.at(monotonic_ns()))

    def enlist(self, name: str) -> socket.socket:
        """Return the child's end of the socket of a program that is about to be spawned.

        It counts as at work from now on. Close this end here once the child has it:
        while any process still has it, the program's exit is not noticed.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._sockets[ours.fileno()] = ours
        self._programs[ours.fileno()] = Program(name, since=monotonic_ns())
        self._poll.register(ours, select.EPOLLIN)
        return theirs

    async def advance(self, delta: timedelta, *, show: bool = False) -> None:
        """Pass `delta` of policy time; see `advance_to`."""
        await self.advance_to(self.now() + delta, show=show)

    async def advance_to(self, date: datetime, *, show: bool = False) -> None:
        """Return when policy time has reached `date` and whoever was due has answered.

        Work that was begun at that date may still be under way; see `settled`.

        Args:
            date: aware; one that is past already is reached at once.
            show: go at the cap throughout, for an audience, instead of leaping.

        Raises:
            RuntimeError: the script is already on its way to another date.
        """
        if self._arrival is not None:
            raise RuntimeError("already on the way to another date")
        self._target = Target(to_micros(date), show)
        self._arrival = asyncio.get_running_loop().create_future()
        try:
            await self._wait(self._arrival)
        finally:
            self._target = self._arrival = None

    async def settled(self) -> None:
        """Return when nobody is at work in network time, or due."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(future)
        await self._wait(future)

    def standing(self) -> tuple[str, ...]:
        """Return the names of those that were woken, do not answer, and make time stand."""
        moment = monotonic_ns()
        return tuple(
            program.name
            for program in self._programs.values()
            if program.owes and moment - program.woken_at >= self._patience
        )

    def holding(self) -> tuple[str, ...]:
        """Return the names of those that are at work in network time."""
        moment = monotonic_ns()
        return tuple(p.name for p in self._programs.values() if p.slows(moment))

    def enlisted(self) -> tuple[str, ...]:
        """Return the names of the programs that have not exited."""
        return tuple(program.name for program in self._programs.values())

    async def _wait(self, future: asyncio.Future[None]) -> None:
        if self._task is None or self._task.done():
            raise RuntimeError("time moves only inside the conductor's context")
        self._changed.set()
        await future

    def _fail(self, task: asyncio.Task[None]) -> None:
        """Let nobody wait for a conductor that has ended."""
        why = None if task.cancelled() else task.exception()
        for future in [self._arrival, *self._settling]:
            if future is not None and not future.done():
                future.set_exception(why or RuntimeError("the conductor has ended"))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._read_reports()
            moment = monotonic_ns()
            now = self._leg.at(moment)
            self._wake(now, moment)
            self._announce(now, moment)
            over = now == self._leg.p1
            if over and (leg := self._next_leg(now)) is not None:
                if leg.rate == LEAP:
                    await asyncio.sleep(0)
                    continue
                over = False
            until = self._next_moment(stands=over)
            timer = None
            if until is not None:
                pause = max(until - monotonic_ns(), 0) / 1e9
                timer = loop.call_later(pause, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _read_reports(self) -> None:
        """Read every socket until, at one moment, none has anything left."""
        while ready := self._poll.poll(0):
            for fd, _ in ready:
                self._read_from(fd)

    def _read_from(self, fd: int) -> None:
        program = self._programs[fd]
        while True:
            try:
                report = self._sockets[fd].recv(REPORT.size)
            except BlockingIOError:
                return
            except ConnectionError:
                report = b""
            if not report:
                self._drop(fd)
                return
            if len(report) != REPORT.size:
                raise RuntimeError(f"report of {len(report)} bytes from {program.name}")
            program.due, program.holds, program.since, program.answered = REPORT.unpack(report)

    def _drop(self, fd: int) -> None:
        del self._programs[fd]
        self._poll.unregister(fd)
        self._sockets.pop(fd).close()

    def _wake(self, now: int, moment: int) -> None:
        for fd, program in self._programs.items():
            if program.due <= now and not program.owes:
                program.wakes += 1
                program.woken_at = moment
                # It has answered all wakes before this one, so there is room; one
                # that is gone shows as the end of its socket when we read next.
                with suppress(OSError):
                    self._sockets[fd].send(WAKE.pack(program.wakes), socket.MSG_NOSIGNAL)

    def _announce(self, now: int, moment: int) -> None:
        """Tell the script that it has arrived, and that everything is done."""
        busy = slow = False
        for program in self._programs.values():
            busy = busy or program.owes
            slow = slow or program.slows(moment)
        if busy:
            return
        if self._target is not None and now >= self._target.date:
            self._target = None
            if self._arrival is not None and not self._arrival.done():
                self._arrival.set_result(None)
        if not slow:
            for future in self._settling:
                if not future.done():
                    future.set_result(None)
            self._settling.clear()

    def _next_leg(self, now: int) -> Leg | None:
        moment = monotonic_ns()
        leg = plan(now, moment, self._programs.values(), self._target, self._cap)
        if leg is not None:
            self._page.publish(leg)
            self._leg = leg
        if self._progress is not None:
            self._show(leg, now)
        return leg

    def _show(self, leg: Leg | None, now: int) -> None:
        standing = self.standing()
        if leg is None and standing == self._named:
            return  # somebody is being woken, as happens at every date
        self._named = standing
        rate = 0.0 if leg is None else float("inf") if leg.rate == LEAP else leg.rate / 1000
        assert self._progress is not None  # the caller has looked
        self._progress(
            Progress(
                now=from_micros(now),
                until=from_micros(now if leg is None else leg.p1),
                target=None if self._target is None else from_micros(self._target.date),
                rate=rate,
                holding=self.holding(),
                standing=standing,
            )
        )

    def _next_moment(self, *, stands: bool) -> int | None:
        """Return when to look again, ns of network time, if nobody reports before."""
        programs = self._programs.values()
        if stands:
            named = [p.woken_at + self._patience for p in programs if p.owes]
            moment = monotonic_ns()
            return min((date for date in named if date > moment), default=None)
        dates = [p.due for p in programs if not p.owes]
        if self._target is not None:
            dates.append(self._target.date)
        # A date reported while this leg is under way may lie inside it.
        return self._leg.when(min([*dates, self._leg.p1]))
