import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.clock import (
    MAX_PAUSE,
    MIN_PAUSE,
    Clock,
    SystemClock,
    Waiters,
    look_again,
    monotonic_ns,
)
from tests.support.clock import FakeClock, settle

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Machine:
    """A machine whose wall clock can be set, and which can be suspended, while it sleeps."""

    def __init__(self, *events: tuple[float, float]) -> None:
        self.wall = START.timestamp()
        self.ran = 0.0  # seconds of CLOCK_MONOTONIC
        self.pauses: list[float] = []
        self._events = list(events)  # (at which second of running, by how much the wall moves)

    def read(self) -> float:
        return self.wall

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        end = self.ran + seconds
        while self._events and self._events[0][0] <= end:
            at, moved = self._events.pop(0)
            self.wall += at - self.ran + moved
            self.ran = at
        self.wall += end - self.ran
        self.ran = end


def clock_of(machine: Machine) -> SystemClock:
    return SystemClock(wall=machine.read, pause=machine.pause)


async def test_system_clock_waits_exactly_until_the_date() -> None:
    machine = Machine()
    await clock_of(machine).wait_until(START + HOUR)
    assert machine.wall == (START + HOUR).timestamp()
    assert max(machine.pauses) <= MAX_PAUSE
    assert len(machine.pauses) <= 62  # looks again once a minute, and does not poll


async def test_system_clock_notices_a_suspended_machine_within_a_pause() -> None:
    machine = Machine((100.0, 7200.0))
    await clock_of(machine).wait_until(START + HOUR)
    assert machine.ran <= 100.0 + MAX_PAUSE


async def test_system_clock_set_back_is_not_early() -> None:
    machine = Machine((100.0, -1800.0))
    await clock_of(machine).wait_until(START + HOUR)
    assert machine.wall >= (START + HOUR).timestamp()
    assert machine.ran >= 3600.0 + 1800.0


async def test_who_looks_again_at_a_date_is_not_held_up_by_a_clock_that_was_ahead() -> None:
    clock = FakeClock()
    clock.jump(timedelta(days=3700))
    waiting = asyncio.ensure_future(look_again(clock, clock.now() + timedelta(hours=1)))
    await settle()
    clock.jump(timedelta(days=-3700))
    await clock.advance_network(MAX_PAUSE - 1)
    assert not waiting.done()
    await clock.advance_network(1.0)
    assert waiting.done()
    assert clock.due_network is None


async def test_who_looks_again_at_a_date_does_so_at_that_date_and_no_earlier() -> None:
    clock = FakeClock()
    waiting = asyncio.ensure_future(look_again(clock, clock.now() + timedelta(hours=1)))
    await clock.advance(timedelta(minutes=59))
    clock.jump(timedelta(seconds=-59))  # slewed, not set
    await clock.advance_network(3600.0)
    assert not waiting.done()
    clock.jump(timedelta(seconds=59))
    await clock.advance(timedelta(minutes=1))
    assert waiting.done()
    assert clock.due_network is None


async def test_who_gives_up_looking_again_leaves_nobody_waiting() -> None:
    clock = FakeClock()
    waiting = asyncio.ensure_future(look_again(clock, clock.now() + HOUR))
    await settle()
    assert len(asyncio.all_tasks()) > 1
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (clock.due, clock.due_network) == (None, None)


async def test_system_clock_slewed_near_the_date_does_not_poll() -> None:
    machine = Machine((59.9999999, -0.000001))
    await clock_of(machine).wait_until(START + timedelta(minutes=1))
    assert machine.wall >= (START + timedelta(minutes=1)).timestamp()
    assert min(pause for pause in machine.pauses if pause) >= MIN_PAUSE


async def test_system_clock_gives_way_for_a_past_date() -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await SystemClock().wait_until(START - timedelta(days=10_000))
    assert ran == [True]


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(-4000, 4000)), max_size=5).map(sorted),
    st.integers(-100, 9000),
)
def test_system_clock_is_never_early(events: list[tuple[float, float]], seconds: int) -> None:
    machine = Machine(*events)
    clock, date = clock_of(machine), START + timedelta(seconds=seconds)
    asyncio.run(clock.wait_until(date))
    assert clock.now() >= date  # to the microsecond, as dates are


def uptime() -> float:
    """The kernel's own account of CLOCK_BOOTTIME, cut to hundredths."""
    return float(Path("/proc/uptime").read_text().split()[0])


async def test_system_clock_reads_the_clocks_it_says() -> None:
    clock: Clock = SystemClock()
    loop = asyncio.get_running_loop()
    assert clock.now().tzinfo is UTC
    before = uptime()
    assert before <= clock.elapsed() <= uptime() + 0.01
    before = loop.time()
    assert before <= clock.monotonic() <= loop.time()
    assert before <= monotonic_ns() / 1e9 <= loop.time()


async def test_system_clock_sleep_is_network_time_and_hold_does_nothing() -> None:
    machine = Machine((1.0, 1000.0))
    clock = clock_of(machine)
    with clock.hold(), clock.hold():
        await clock.sleep(5.0)
    assert machine.ran == 5.0


async def test_waiters_fire_in_the_order_of_the_dates() -> None:
    waiters = Waiters()
    order: list[int] = []

    def note(hours: int, _: asyncio.Future[None]) -> None:
        order.append(hours)

    for hours in (3, 1, 2, 1):
        future = waiters.add(START + hours * HOUR)
        future.add_done_callback(partial(note, hours))
    waiters.add(START).cancel()
    assert waiters.earliest() == START + HOUR
    waiters.release(START + 2 * HOUR)
    await settle()
    assert order == [1, 1, 2]
    assert waiters.earliest() == START + 3 * HOUR


async def test_fake_clock_fires_a_periodic_task_as_often_as_life_would() -> None:
    clock = FakeClock()
    start = clock.now()
    fired: list[datetime] = []

    async def hourly() -> None:
        while True:
            await clock.wait_until(clock.now() + HOUR)
            fired.append(clock.now())

    task = asyncio.create_task(hourly())
    await clock.advance(timedelta(hours=5, minutes=30))
    assert fired == [start + n * HOUR for n in range(1, 6)]
    assert clock.due == start + 6 * HOUR
    assert clock.monotonic() == 0.0
    task.cancel()
    await settle()
    assert clock.due is None


async def test_fake_clock_keeps_the_two_times_apart() -> None:
    clock = FakeClock()
    now, elapsed = clock.now(), clock.elapsed()
    slept = asyncio.create_task(clock.sleep(2.5))
    await clock.advance(HOUR)
    assert not slept.done()
    assert clock.due_network == 2.5
    await clock.advance_network(2.5)
    assert slept.done()
    assert (clock.now(), clock.elapsed()) == (now + HOUR, elapsed + 3600.0)


async def test_fake_clock_jump_leaves_elapsed_alone() -> None:
    clock = FakeClock()
    elapsed = clock.elapsed()
    waiting = asyncio.create_task(clock.wait_until(clock.now() + HOUR))
    await settle()
    clock.jump(2 * HOUR)
    await settle()
    assert waiting.done()
    clock.jump(-3 * HOUR)
    assert clock.elapsed() == elapsed
    with pytest.raises(ValueError, match="does not go back"):
        clock.move(-HOUR)
    with pytest.raises(ValueError, match="does not go back"):
        clock.move_network(-1.0)


async def test_fake_clock_counts_holds() -> None:
    clock: FakeClock = FakeClock()
    with clock.hold():
        with clock.hold():
            assert clock.holds == 2
        assert clock.holds == 1
    assert clock.holds == 0
