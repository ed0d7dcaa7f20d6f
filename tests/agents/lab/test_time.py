import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lab.clock import NEVER, REPORT, WAKE, LabClock, from_micros, to_micros
from agents.lab.page import LEAP, Leg, Page, milli
from agents.lab.time import STALE, STRIDE, Conductor, Program, Progress, Target, plan
from agents.runtime.clock import Clock, monotonic_ns

ROOT = Path(__file__).parents[3]
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = to_micros(START)
CAP = milli(300)
MOMENT = 10 * STALE


# The decision alone, without a socket.


programs = st.builds(
    Program,
    st.just("p"),
    due=st.one_of(st.just(NEVER), st.integers(NOW - 10**9, NOW + 10**12)),
    holds=st.integers(0, 3),
    since=st.integers(MOMENT - 2 * STALE, MOMENT),
    wakes=st.integers(0, 1),
    answered=st.integers(0, 1),
)
targets = st.one_of(
    st.none(), st.builds(Target, st.integers(NOW + 1, NOW + 10**12), show=st.booleans())
)


@given(st.lists(programs, max_size=5), targets)
def test_no_leg_passes_what_anybody_waits_for(
    everyone: list[Program], target: Target | None
) -> None:
    leg = plan(NOW, MOMENT, everyone, target, CAP)
    if any(p.owes or p.due <= NOW for p in everyone):
        assert leg is None
        return
    assert leg is not None
    assert NOW == leg.p0 < leg.p1
    assert leg.p1 <= min([p.due for p in everyone], default=NEVER)
    assert target is None or leg.p1 <= target.date
    if target is None:
        assert leg.rate == milli(1)
    elif target.show or any(p.slows(MOMENT) for p in everyone):
        assert leg.rate == CAP
    else:
        assert leg.rate == LEAP
    if leg.rate != LEAP:
        assert leg.when(leg.p1) <= MOMENT + STRIDE


def test_a_hold_slows_until_it_is_stale() -> None:
    target = Target(NOW + 10**12)
    for age, rate in ((0, CAP), (STALE - 1, CAP), (STALE, LEAP)):
        leg = plan(NOW, MOMENT, [Program("p", MOMENT - age)], target, CAP)
        assert leg is not None
        assert leg.rate == rate


def test_a_program_that_owes_an_answer_makes_time_stand() -> None:
    target = Target(NOW + 10**12)
    program = Program("p", MOMENT, wakes=1)
    assert plan(NOW, MOMENT, [program], target, CAP) is None
    program.answered = 1
    assert plan(NOW, MOMENT, [program], target, CAP) is not None


@given(st.integers(0, 2**50))
def test_dates_keep_their_microseconds(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


# A conductor and programs, in one process.


class Lab:
    """A conductor, its page, and clocks of programs that share our loop."""

    def __init__(self, conductor: Conductor, page: Page, progress: list[Progress]) -> None:
        self.conductor = conductor
        self.page = page
        self.progress = progress
        self.clocks: list[LabClock] = []

    def clock(self, name: str, *, on_lost: Callable[[], None] | None = None) -> LabClock:
        end = self.conductor.enlist(name)
        clock = LabClock.attach(self.page.fd, end.detach(), on_lost=on_lost)
        self.clocks.append(clock)
        return clock


@asynccontextmanager
async def lab(*, rate: float = 300.0, patience: float = 1.0) -> AsyncIterator[Lab]:
    page = Page.create(NOW, monotonic_ns())
    progress: list[Progress] = []
    async with Conductor(page, rate=rate, patience=patience, progress=progress.append) as conductor:
        made = Lab(conductor, page, progress)
        yield made
        for clock in made.clocks:
            clock.close()
    page.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds, looked at whenever the loop goes round."""
    loop = asyncio.get_running_loop()
    holds: asyncio.Future[None] = loop.create_future()

    def look() -> None:
        if condition():
            holds.set_result(None)
        else:
            loop.call_soon(look)

    look()
    await holds


pytestmark = pytest.mark.sockets


async def test_time_passes_at_rate_one_without_a_target() -> None:
    async with lab() as made:
        await until(lambda: made.conductor.now() > START)
        assert {p.rate for p in made.progress} == {1.0}


async def test_the_script_leaps_to_its_date() -> None:
    async with lab() as made:
        await made.conductor.advance_to(START + timedelta(days=365))
        assert made.conductor.now() >= START + timedelta(days=365)
        assert float("inf") in {p.rate for p in made.progress}
        await made.conductor.advance_to(START)  # already past


async def test_show_goes_at_the_cap_throughout() -> None:
    async with lab(rate=50_000) as made:
        made.clock("client-01").ready()
        await made.conductor.settled()
        await made.conductor.advance(4 * HOUR, show=True)
        assert {p.rate for p in made.progress} == {1.0, 50_000.0}


async def test_dates_fire_in_order_none_early_none_late() -> None:
    async with lab() as made:
        clock = made.clock("client-01")
        fired: list[tuple[datetime, datetime]] = []

        async def once(date: datetime) -> None:
            await clock.wait_until(date)
            fired.append((date, clock.now()))

        dates = [START + n * HOUR + timedelta(microseconds=n) for n in (5, 1, 3, 2, 4, 3)]
        async with asyncio.TaskGroup() as group:
            for date in dates:
                group.create_task(once(date))
            await asyncio.sleep(0)
            clock.ready()
            await made.conductor.advance(24 * HOUR)
        assert [due for due, _ in fired] == sorted(dates)
        assert all(due == ran for due, ran in fired)


async def test_a_waiter_that_gives_up_no_longer_stops_time() -> None:
    async with lab() as made:
        clock = made.clock("client-01")
        waiting = asyncio.create_task(clock.wait_until(START + HOUR))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        clock.ready()
        await made.conductor.settled()
        made.progress.clear()
        await made.conductor.advance(10 * HOUR)
        assert START + HOUR not in {p.until for p in made.progress}


async def test_a_hold_slows_time_and_its_end_lets_it_leap() -> None:
    async with lab() as made:
        clock = made.clock("client-01")
        clock.ready()
        await made.conductor.settled()
        with clock.hold():
            arrival = asyncio.create_task(made.conductor.advance(1000 * HOUR))
            await until(lambda: any(p.rate == 300.0 for p in made.progress))
            assert made.conductor.holding() == ("client-01",)
            assert not any(p.rate == float("inf") for p in made.progress)
        await arrival
        assert any(p.rate == float("inf") for p in made.progress)


async def test_work_that_is_handed_on_is_seen_as_a_hold_throughout() -> None:
    """Each takes its hold before it answers: time may not leap between them."""
    async with lab() as made:
        clocks = [made.clock(f"client-{n:02}") for n in range(5)]
        for clock in clocks:
            clock.ready()
        await made.conductor.settled()
        done = asyncio.Event()
        seen: list[float] = []

        async def work(n: int, answered: asyncio.Event) -> None:
            with clocks[n % 5].hold():
                answered.set()
                if n == 200:
                    seen.extend(p.rate for p in made.progress)
                    done.set()
                    return
                mine = asyncio.Event()
                task = asyncio.create_task(work(n + 1, mine))
                await mine.wait()
            await task

        first = asyncio.create_task(work(0, asyncio.Event()))
        await asyncio.sleep(0)
        made.progress.clear()
        arrival = asyncio.create_task(made.conductor.advance(1000 * HOUR))
        await done.wait()
        await first
        assert float("inf") not in seen
        await arrival


async def test_a_task_that_resumes_others_still_names_its_next_date_in_time() -> None:
    async with lab() as made:
        clock = made.clock("client-01")
        fired: list[tuple[datetime, datetime]] = []

        async def deep(date: datetime, depth: int) -> None:
            if depth:
                await asyncio.create_task(deep(date, depth - 1))
            else:
                await clock.wait_until(date)
                fired.append((date, clock.now()))

        async def hourly() -> None:
            for n in range(1, 50):
                await deep(START + n * HOUR, 5)

        task = asyncio.create_task(hourly())
        await asyncio.sleep(0)
        clock.ready()
        await made.conductor.advance(100 * HOUR)
        await task
        assert len(fired) == 49
        assert all(due == ran for due, ran in fired)


async def test_a_date_inside_the_leg_under_way_is_woken_on_the_way() -> None:
    page = Page.create(NOW, monotonic_ns())
    page.publish(Leg(monotonic_ns(), NOW, to_micros(START + 10**5 * HOUR), milli(3600)))
    async with Conductor(page) as conductor:  # that leg lasts a day of network time
        clock = LabClock.attach(page.fd, conductor.enlist("client-01").detach())
        date = START + timedelta(minutes=3)
        await clock.wait_until(date)
        assert clock.now() >= date
        assert to_micros(clock.now()) < page.read().p1
        clock.close()
    page.close()


async def test_all_is_read_until_nothing_is_left_at_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B takes a hold and answers A while the conductor is between their two sockets."""
    page = Page.create(NOW, monotonic_ns())
    conductor = Conductor(page)
    read_from = conductor._read_from
    with conductor.enlist("b") as b, conductor.enlist("a") as a:
        b.send(REPORT.pack(NEVER, 0, 0, 0))
        a.send(REPORT.pack(NEVER, 1, monotonic_ns(), 0))
        conductor._read_reports()
        assert conductor.holding() == ("a",)
        a.send(REPORT.pack(NEVER, 1, monotonic_ns(), 0))

        def hand_on(fd: int) -> None:
            monkeypatch.setattr(conductor, "_read_from", read_from)
            b.send(REPORT.pack(NEVER, 1, monotonic_ns(), 0))
            a.send(REPORT.pack(NEVER, 0, 0, 0))
            read_from(fd)

        monkeypatch.setattr(conductor, "_read_from", hand_on)
        conductor._read_reports()
        assert conductor.holding() == ("b",)
    conductor._read_reports()
    assert conductor.enlisted() == ()
    conductor._poll.close()
    page.close()


async def test_elapsed_follows_policy_time_and_sleep_does_not() -> None:
    async with lab() as made:
        clock: Clock = made.clock("client-01")
        before = clock.elapsed()
        network = clock.monotonic()
        made.clocks[0].ready()
        await made.conductor.advance(48 * HOUR)
        assert clock.elapsed() - before >= 48 * 3600
        assert clock.monotonic() - network < 48 * 3600
        await clock.sleep(0)
        await clock.wait_until(START)


async def test_one_that_does_not_answer_is_named_and_holds_time() -> None:
    async with lab(patience=0.05) as made:
        end = made.conductor.enlist("client-05")
        end.send(REPORT.pack(NOW + 3_600_000_000, 0, 0, 0))
        other = made.clock("client-06")
        other.ready()
        await made.conductor.settled()
        arrival = asyncio.create_task(made.conductor.advance(2 * HOUR))
        await until(lambda: bool(made.progress and made.progress[-1].standing))
        assert made.conductor.standing() == ("client-05",)
        assert made.progress[-1].standing == ("client-05",)
        assert made.progress[-1].rate == 0.0
        assert made.conductor.now() == START + HOUR
        # A report that was on its way when it was woken is no answer.
        end.send(REPORT.pack(NOW + 4 * 3_600_000_000, 0, 0, 0))
        with other.hold():  # all sockets are read until none has anything left
            await until(lambda: made.conductor.holding() == ("client-06",))
        assert made.conductor.standing() == ("client-05",)
        assert not arrival.done()
        (wake,) = WAKE.unpack(end.recv(WAKE.size))
        end.send(REPORT.pack(NEVER, 0, 0, wake))
        await arrival
        assert made.conductor.standing() == ()
        end.close()


async def test_one_that_has_exited_is_dropped_and_does_not_hold_time() -> None:
    async with lab() as made:
        end = made.conductor.enlist("client-05")
        end.send(REPORT.pack(NOW + 3_600_000_000, 1, monotonic_ns(), 0))
        end.close()
        await made.conductor.advance(2 * HOUR)
        assert made.conductor.enlisted() == ()


async def test_one_that_exits_instead_of_answering_is_dropped() -> None:
    async with lab() as made:
        end = made.conductor.enlist("client-05")
        end.send(REPORT.pack(NOW + 3_600_000_000, 0, 0, 0))
        arrival = asyncio.create_task(made.conductor.advance(2 * HOUR))
        await until(lambda: made.conductor.now() == START + HOUR)
        end.close()
        await arrival


async def test_a_malformed_report_ends_the_lab_and_not_in_silence() -> None:
    async def script() -> None:
        async with lab() as made:
            with made.conductor.enlist("client-05") as end:
                end.send(b"abc")
                await made.conductor.advance(2 * HOUR)

    with pytest.raises(RuntimeError, match="report of 3 bytes from client-05"):
        await script()


async def test_a_program_notices_that_the_lab_is_gone() -> None:
    lost = asyncio.Event()
    page = Page.create(NOW, monotonic_ns())
    async with Conductor(page) as conductor:
        clock = LabClock.attach(page.fd, conductor.enlist("a").detach(), on_lost=lost.set)
        clock.ready()
    await lost.wait()
    with clock.hold():
        pass
    waiting = asyncio.create_task(clock.wait_until(clock.now() + HOUR))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(RuntimeError, match="only inside"):
        await conductor.advance(HOUR)
    clock.close()
    page.close()


async def test_the_script_goes_to_one_date_at_a_time() -> None:
    async with lab() as made:
        made.clock("client-01")  # still starting, so time does not leap
        first = asyncio.create_task(made.conductor.advance(1000 * HOUR))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another date"):
            await made.conductor.advance(HOUR)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await made.conductor.advance(timedelta())


# Real processes.


class Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


async def spawn(made: Lab, name: str, what: str, argument: int = 0) -> Child:
    with made.conductor.enlist(name) as end:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "tests.agents.lab.programs", what],
            *[str(made.page.fd), str(end.fileno()), str(argument)],
            pass_fds=[made.page.fd, end.fileno()],
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            limit=2**22,
        )
    return Child(process)


async def test_a_week_of_hourly_dates_of_ten_processes_nothing_early_nothing_late() -> None:
    async with lab() as made:
        hours = 24 * 7
        children = [await spawn(made, f"client-{n:02}", "hourly", hours) for n in range(10)]
        await made.conductor.settled()
        await made.conductor.advance(timedelta(days=8))
        for child in children:
            rows = json.loads(await child.line())
            assert len(rows) == hours
            assert all(due == ran for due, ran in rows)
            assert await child.process.wait() == 0
        await until(lambda: made.conductor.enlisted() == ())


async def test_a_stopped_process_is_named_and_a_killed_one_is_dropped() -> None:
    async with lab(patience=0.05) as made:
        stopped = await spawn(made, "client-01", "hourly", 24)
        mute = await spawn(made, "client-02", "mute")
        await mute.line()
        await made.conductor.settled()
        stopped.process.send_signal(signal.SIGSTOP)
        arrival = asyncio.create_task(made.conductor.advance(48 * HOUR))
        await until(lambda: "client-01" in made.conductor.standing())
        stopped.process.send_signal(signal.SIGCONT)
        await until(lambda: made.conductor.standing() == ("client-02",))
        assert not arrival.done()
        mute.process.kill()
        await mute.process.wait()
        await arrival
        rows = json.loads(await stopped.line())
        assert all(due == ran for due, ran in rows)
        await stopped.process.wait()
