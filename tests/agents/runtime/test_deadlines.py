"""Deadlines of many, on one timer of the loop."""

import asyncio
from contextvars import ContextVar

from agents.runtime.deadlines import TICK, Deadlines
from tests.support.loops import SteppedLoop, stepped

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Clock:
    """Notes when it rang, and may do something then."""

    def __init__(self, then: object = None) -> None:
        self.rang: list[float] = []
        self.who: list[str] = []
        self._then = then

    def ring(self) -> None:
        self.rang.append(asyncio.get_running_loop().time())
        self.who.append(WHO.get())
        if isinstance(self._then, Exception):
            raise self._then
        if callable(self._then):
            self._then()


@stepped
async def test_a_deadline_rings_once_and_not_before_its_time(loop: SteppedLoop) -> None:
    deadlines, clock = Deadlines(), Clock()
    begun = loop.time()
    deadlines.add(clock, 10.0)
    assert len(deadlines) == 1
    await loop.pass_time(9.9)
    assert not clock.rang
    await loop.pass_time(0.1 + TICK)
    assert len(clock.rang) == 1
    assert clock.rang[0] >= begun + 10.0
    await loop.pass_time(1000.0)
    assert len(clock.rang) == 1
    assert len(deadlines) == 0


@stepped
async def test_none_is_early_wherever_in_a_tick_it_begins(loop: SteppedLoop) -> None:
    for _ in range(10):
        deadlines, clock = Deadlines(), Clock()
        due = loop.time() + 10.0
        deadlines.add(clock, 10.0)
        await loop.pass_time(10.0 - TICK / 2)
        await loop.pass_time(TICK / 2 + TICK)
        assert [at >= due for at in clock.rang] == [True]
        await loop.pass_time(TICK / 10)


@stepped
async def test_what_has_rung_leaves_nothing(loop: SteppedLoop) -> None:
    deadlines = Deadlines()
    for _ in range(10):
        deadlines.add(Clock(), 1.0)
        await loop.pass_time(1.0 + TICK)
    assert not deadlines._due
    assert not deadlines._ticks


@stepped
async def test_they_ring_in_the_order_of_their_time(loop: SteppedLoop) -> None:
    deadlines, rang = Deadlines(), list[int]()
    for seconds in (30, 5, 300, 1, 60, -1):
        deadlines.add(Clock(lambda seconds=seconds: rang.append(seconds)), seconds)
    for _ in range(400):
        await loop.pass_time(1.0)
    assert rang == [-1, 1, 5, 30, 60, 300]


@stepped
async def test_one_that_is_earlier_than_the_first_is_not_kept_waiting(loop: SteppedLoop) -> None:
    deadlines, late, early = Deadlines(), Clock(), Clock()
    deadlines.add(late, 100.0)
    deadlines.add(early, 1.0)
    await loop.pass_time(1.0 + TICK)
    assert (len(early.rang), len(late.rang)) == (1, 0)
    await loop.pass_time(100.0)
    assert len(late.rang) == 1


@stepped
async def test_what_is_taken_back_does_not_ring(loop: SteppedLoop) -> None:
    deadlines, clock, other = Deadlines(), Clock(), Clock()
    tick = deadlines.add(clock, 1.0)
    deadlines.add(other, 1.0)
    deadlines.discard(clock, tick)
    deadlines.discard(clock, tick)
    assert len(deadlines) == 1
    await loop.pass_time(2.0)
    assert (len(clock.rang), len(other.rang)) == (0, 1)
    deadlines.discard(other, tick)


@stepped
async def test_who_rings_may_add_and_take_back(loop: SteppedLoop) -> None:
    deadlines, again = Deadlines(), Clock()
    ticks: dict[int, int] = {}

    def act(other: int) -> None:
        deadlines.discard(both[other], ticks[other])
        deadlines.add(again, 1.0)

    both = [Clock(lambda: act(1)), Clock(lambda: act(0))]
    for number, clock in enumerate(both):
        ticks[number] = deadlines.add(clock, 1.0)
    await loop.pass_time(1.0 + TICK)
    assert sorted(len(clock.rang) for clock in both) == [0, 1]
    await loop.pass_time(1.0 + TICK)
    assert len(again.rang) == 1
    assert len(deadlines) == 0


@stepped
async def test_what_is_added_by_who_rings_keeps_nobody_waiting(loop: SteppedLoop) -> None:
    deadlines, next_, late = Deadlines(), Clock(), Clock()
    deadlines.add(Clock(lambda: deadlines.add(late, 100.0)), 1.0)
    deadlines.add(next_, 2.0)
    await loop.pass_time(1.0 + TICK)
    await loop.pass_time(1.0)
    assert (len(next_.rang), len(late.rang)) == (1, 0)


@stepped
async def test_one_that_fails_keeps_no_other_from_ringing(loop: SteppedLoop) -> None:
    said: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, about: said.append(about))
    deadlines, others = Deadlines(), [Clock(), Clock(), Clock()]
    # Whichever of one tick is the first, and in the tick behind.
    deadlines.add(others[0], 1.0)
    deadlines.add(Clock(ValueError("a fault")), 1.0)
    deadlines.add(others[1], 1.0)
    deadlines.add(others[2], 2.0)
    await loop.pass_time(1.0 + TICK)
    await loop.pass_time(1.0 + TICK)
    assert [len(other.rang) for other in others] == [1, 1, 1]
    assert [str(about["exception"]) for about in said] == ["a fault"]
    assert said[0]["message"] == "a deadline failed"


@stepped
async def test_it_rings_in_nobodys_context(loop: SteppedLoop) -> None:
    deadlines, clock = Deadlines(), Clock()
    WHO.set("who adds")
    deadlines.add(clock, 1.0)
    await loop.pass_time(2.0)
    assert clock.who == ["nobody"]
