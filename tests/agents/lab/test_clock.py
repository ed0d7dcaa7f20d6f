"""What a lab's clock tells the conductor, and when; the conductor is played by the test."""

import asyncio
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from agents.lab.clock import NEVER, PATIENCE, REPORT, SETTLE, WAKE, LabClock, to_micros
from agents.lab.page import LEAP, Leg, Page
from agents.runtime.clock import monotonic_ns
from tests.support.clock import settle

pytestmark = pytest.mark.sockets

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Played:
    """The conductor's end of the socket, and its page."""

    def __init__(self) -> None:
        self.page = Page.create(to_micros(START), monotonic_ns())
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.clock = LabClock.attach(self.page.fd, theirs.detach())

    def reports(self) -> list[tuple[int, int, int]]:
        """All that was sent: due date, number of holds, last wake answered."""
        found: list[tuple[int, int, int]] = []
        while True:
            try:
                due, holds, _, answered = REPORT.unpack(self.socket.recv(REPORT.size))
            except BlockingIOError:
                return found
            found.append((due, holds, answered))

    def stand_at(self, date: datetime) -> None:
        leg = self.page.read()
        self.page.publish(Leg(monotonic_ns(), leg.p1, to_micros(date), LEAP))

    def wake(self, number: int) -> None:
        self.socket.send(WAKE.pack(number))

    def close(self) -> None:
        self.clock.close()
        self.socket.close()
        self.page.close()


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.close()


async def ready(played: Played) -> None:
    played.clock.ready()
    await settle(PATIENCE)
    assert played.reports()[-1] == (NEVER, 0, 0)


async def test_a_new_clock_holds_until_its_program_is_ready(played: Played) -> None:
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 1, 0)]
    played.clock.ready()
    played.clock.ready()
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 0, 0)]


async def test_a_hold_is_reported_before_the_first_byte_can_leave(played: Played) -> None:
    await ready(played)
    with played.clock.hold():
        assert played.reports() == [(NEVER, 1, 0)]


async def test_a_hold_inside_another_is_not_worth_a_packet_of_its_own(played: Played) -> None:
    await ready(played)
    with played.clock.hold():
        for _ in range(1000):
            with played.clock.hold():
                pass
        assert played.reports() == [(NEVER, 1, 0)]


async def test_the_end_of_a_hold_is_reported_once_the_tasks_had_their_turn(
    played: Played,
) -> None:
    await ready(played)
    with played.clock.hold():
        pass
    await settle(SETTLE - 1)
    assert played.reports() == [(NEVER, 1, 0)]
    await settle(2)
    assert played.reports() == [(NEVER, 0, 0)]


async def test_the_end_of_a_hold_and_the_next_date_are_one_report(played: Played) -> None:
    await ready(played)

    async def work() -> None:
        with played.clock.hold():
            await asyncio.sleep(0)
        for _ in range(SETTLE // 2):
            await asyncio.sleep(0)
        await played.clock.wait_until(START + HOUR)

    task = asyncio.create_task(work())
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 1, 0), (to_micros(START + HOUR), 0, 0)]
    task.cancel()
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 0, 0)]


async def test_a_wake_is_answered_after_those_it_resumed_have_taken_their_holds(
    played: Played,
) -> None:
    await ready(played)
    release = asyncio.Event()

    async def work() -> None:
        await played.clock.wait_until(START + HOUR)
        for _ in range(SETTLE // 2):
            await asyncio.sleep(0)
        with played.clock.hold():
            await release.wait()

    task = asyncio.create_task(work())
    await settle(PATIENCE)
    assert played.reports() == [(to_micros(START + HOUR), 0, 0)]
    played.stand_at(START + HOUR)
    played.wake(1)
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 1, 0), (NEVER, 1, 1)]
    release.set()
    await task
    await settle(PATIENCE)
    assert played.reports() == [(NEVER, 0, 1)]


async def test_a_wake_before_the_date_resumes_nobody(played: Played) -> None:
    waiting = asyncio.create_task(played.clock.wait_until(START + HOUR))
    await settle()
    played.stand_at(START + HOUR - timedelta(microseconds=1))
    played.wake(1)
    await settle(PATIENCE)
    assert not waiting.done()
    assert played.reports()[-1] == (to_micros(START + HOUR), 1, 1)
    played.stand_at(START + HOUR)
    played.wake(2)
    await waiting
    assert played.clock.now() == START + HOUR
    assert played.clock.elapsed() == 3600.0


async def test_an_answer_is_not_put_off_for_ever(played: Played) -> None:
    await ready(played)

    async def restless() -> None:
        while True:
            with played.clock.hold():
                await asyncio.sleep(0)

    task = asyncio.create_task(restless())
    await settle(2)
    played.wake(1)
    await settle(2 * PATIENCE)
    assert played.reports()[-1][2] == 1
    task.cancel()
