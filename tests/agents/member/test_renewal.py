"""Renewing by policy time: when, how often, and what happens when it cannot be done."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from agents.member.member import Member
from agents.member.renewal import FIRST_RETRY, LAST_RETRY, Renewal
from agents.runtime import logs
from agents.runtime.clock import MAX_PAUSE
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from tests.support.clock import START, FakeClock, settle
from tests.support.deployment import POLICIES, Deployment
from tests.support.logs import logged

KIND = Kind.HUB_TLS
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Case:
    """A hub, its renewal, and an issuer that signs, fails, or lags behind on request."""

    def __init__(self, *, spread: float = 0.0) -> None:
        self.site = Deployment()
        self.clock = FakeClock(START)
        self.member: Member = self.site.member(Role.HUB, clock=self.clock)
        self.available = True
        self.root = -1
        self.policy = POLICIES[KIND]
        self.attempts: list[tuple[datetime, str]] = []
        self.held: list[int] = []
        self.spread = spread
        self.renewal = Renewal(
            KIND,
            keyring=self.member.keyring,
            trust=self.member.trust,
            clock=self.clock,
            log=logs.get_logger(),
            obtain=self.obtain,
            policy=lambda: self.policy,
            spread=lambda: self.spread,
        )

    async def obtain(self, kind: Kind, reason: str) -> None:
        assert kind is KIND
        self.attempts.append((self.clock.now(), reason))
        self.held.append(self.clock.holds)
        if not self.available:
            raise UnavailableError("nobody there")
        self.site.certify(
            self.member.keyring,
            kind,
            root=self.root,
            now=self.clock.now(),
            validity=self.policy.validity,
        )

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.attempts]

    @property
    def dates(self) -> list[datetime]:
        return [date for date, _ in self.attempts]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.ensure_future(self.renewal.run()),
            asyncio.ensure_future(self.renewal.follow()),
        ]
        await settle()
        try:
            yield
            for task in tasks:
                assert not task.done(), "it renews for ever"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def rotate(self) -> None:
        self.site.rotate()
        self.site.teach(self.member.trust)


class TestSchedule:
    async def test_the_first_one_is_obtained_at_once(self) -> None:
        case = Case()
        async with case.running():
            assert case.reasons == ["first"]

    @pytest.mark.req("B7")
    async def test_waits_for_the_first_half_of_the_window(self) -> None:
        case = Case()
        async with case.running():
            held = case.member.keyring.credential(KIND)
            assert held is not None
            end, window = held.leaf.not_after, case.policy.window
            await case.clock.advance(end - window - case.clock.now() - timedelta(seconds=1))
            assert case.reasons == ["first"]
            await case.clock.advance(window / 2 + timedelta(seconds=2))
            assert case.reasons == ["first", "window"]
            assert end - window <= case.dates[1] <= end - window / 2

    @pytest.mark.req("B7")
    async def test_goes_on_for_ever(self) -> None:
        case = Case()
        async with case.running():
            await case.clock.advance(10 * case.policy.validity)
            assert case.reasons[0] == "first"
            assert set(case.reasons[1:]) == {"window"}
            assert len(case.reasons) == 11

    async def test_says_when_the_next_is_due(self) -> None:
        case = Case()
        async with case.running():
            due = case.renewal.next_at
            assert due is not None
            assert case.clock.due == due
            await case.clock.advance(due - case.clock.now())
            assert case.dates[1] == due

    async def test_holds_the_clock_while_it_obtains_and_only_then(self) -> None:
        case = Case()
        async with case.running():
            assert case.held == [1]
            assert case.clock.holds == 0

    async def test_an_expired_certificate_is_renewed_at_once(self) -> None:
        case = Case()
        case.site.certify(case.member.keyring, KIND, validity=HOUR)
        case.clock.jump(2 * HOUR)
        async with case.running():
            assert case.reasons == ["expired"]

    @pytest.mark.req("B8")
    async def test_a_policy_that_has_changed_acts_on_the_next_certificate(self) -> None:
        case = Case()
        async with case.running():
            case.policy = type(case.policy)(validity=2 * DAY, window=4 * HOUR)
            case.renewal.poke()
            await settle()
            assert case.reasons == ["first"]
            await case.clock.advance(POLICIES[KIND].validity)
            held = case.member.keyring.credential(KIND)
            assert held is not None
            assert held.leaf.not_after - held.leaf.not_before == 2 * DAY + HOUR

    @pytest.mark.req("B8")
    async def test_never_twice_within_an_hour_whatever_the_policy_says(self) -> None:
        case = Case()
        case.policy = type(case.policy)(validity=HOUR, window=timedelta(days=300))
        async with case.running():
            await case.clock.advance(6 * HOUR)
            gaps = [b - a for a, b in zip(case.dates, case.dates[1:], strict=False)]
            assert gaps
            assert min(gaps) >= HOUR


class TestClockThatWasAhead:
    """For a while; what was computed meanwhile must not hold for longer than it was meant to."""

    AHEAD = timedelta(days=3700)

    @pytest.mark.req("B7")
    async def test_a_retry_does_not_wait_for_the_year_that_it_was(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            case.clock.jump(self.AHEAD)
            await case.clock.advance(FIRST_RETRY)
            tries = len(case.attempts)
            case.clock.jump(-self.AHEAD)
            case.available = True
            await case.clock.advance_network(LAST_RETRY.total_seconds())
            assert len(case.attempts) == tries + 1
            assert case.member.certified(KIND)

    @pytest.mark.req("B7")
    async def test_what_was_issued_meanwhile_is_replaced(self) -> None:
        case = Case()
        case.clock.jump(self.AHEAD)
        async with case.running():
            assert case.member.certified(KIND)
            case.clock.jump(-self.AHEAD)
            assert not case.member.certified(KIND), "not valid yet"
            await case.clock.advance_network(MAX_PAUSE)
            assert case.reasons == ["first", "clock"]
            assert case.member.certified(KIND)

    @pytest.mark.req("B13")
    async def test_the_spread_after_a_rotation_is_as_long_as_it_was_drawn(self) -> None:
        case = Case(spread=600.0)
        async with case.running():
            case.clock.jump(30 * DAY)
            case.rotate()
            await settle()
            case.clock.jump(-30 * DAY)
            case.renewal.poke()
            await case.clock.advance(timedelta(seconds=600))
            assert case.reasons[-1] == "older root"
            held = case.member.keyring.credential(KIND)
            assert held is not None
            assert held.root == case.site.root_id()


class TestFailure:
    async def test_retries_by_policy_dates_with_a_growing_delay(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            await case.clock.advance(HOUR)
            gaps = [b - a for a, b in zip(case.dates, case.dates[1:], strict=False)]
            assert gaps[0] == FIRST_RETRY
            for before, after in itertools.pairwise(gaps):
                assert after == min(before * 2, LAST_RETRY)
            assert gaps[-1] == LAST_RETRY
            assert case.renewal.next_at is None

    async def test_does_not_hold_the_clock_between_two_attempts(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            assert case.clock.holds == 0
            assert case.clock.due == START + FIRST_RETRY

    async def test_says_once_that_it_could_not(self) -> None:
        case = Case()
        case.available = False
        with logged() as lines:
            async with case.running():
                await case.clock.advance(FIRST_RETRY)
            assert len(case.attempts) > 1
        assert [line["event"] for line in lines] == ["key.renewal_failed"]
        assert lines[0]["reason"] == "nobody there"

    async def test_succeeds_as_soon_as_it_can_and_starts_from_the_first_delay_again(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            await case.clock.advance(HOUR)
            case.available = True
            await case.clock.advance(LAST_RETRY)
            assert case.member.certified(KIND)
            case.available = False
            case.renewal.poke(renew=True)
            await settle()
            failed = len(case.attempts)
            await case.clock.advance(FIRST_RETRY)
            assert len(case.attempts) == failed + 1

    async def test_a_poke_makes_no_later_attempt_wait_longer(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            for _ in range(20):
                case.renewal.poke()
                await settle()
            assert len(case.attempts) == 21
            case.available = True
            await case.clock.advance(FIRST_RETRY)
            assert case.member.certified(KIND)

    async def test_a_poke_is_not_waited_for(self) -> None:
        case = Case()
        case.available = False
        async with case.running():
            await case.clock.advance(HOUR)
            before = len(case.attempts)
            case.available = True
            case.renewal.poke()
            await settle()
            assert len(case.attempts) == before + 1
            assert case.member.certified(KIND)


class TestAsked:
    async def test_renews_now(self) -> None:
        case = Case()
        async with case.running():
            case.renewal.poke(renew=True)
            await settle()
            assert case.reasons == ["first", "asked"]

    async def test_stays_asked_until_it_is_done(self) -> None:
        case = Case()
        async with case.running():
            case.available = False
            case.renewal.poke(renew=True)
            await settle()
            case.available = True
            await case.clock.advance(FIRST_RETRY)
            assert case.reasons == ["first", "asked", "asked"]
            await case.clock.advance(HOUR)
            assert len(case.reasons) == 3

    async def test_a_poke_without_a_reason_renews_nothing(self) -> None:
        case = Case()
        async with case.running():
            for _ in range(3):
                case.renewal.poke()
                await settle()
            assert case.reasons == ["first"]


class TestRotation:
    @pytest.mark.req("B7")
    async def test_a_new_root_renews_at_once_where_nothing_is_spread(self) -> None:
        case = Case()
        async with case.running():
            case.rotate()
            await settle()
            assert case.reasons == ["first", "older root"]
            held = case.member.keyring.credential(KIND)
            assert held is not None
            assert held.root == case.site.root_id()

    @pytest.mark.req("B13")
    async def test_the_renewals_of_many_are_spread_and_none_is_later(self) -> None:
        spread = 3600.0
        dates = []
        for _ in range(12):
            case = Case(spread=spread)
            async with case.running():
                case.rotate()
                await case.clock.advance(timedelta(seconds=spread))
                assert case.reasons == ["first", "older root"]
                dates.append(case.dates[1])
        assert all(START <= date <= START + timedelta(seconds=spread) for date in dates)
        assert len(set(dates)) == len(dates)
        assert max(dates) - min(dates) > timedelta(seconds=spread / 4)

    @pytest.mark.req("B13")
    async def test_the_date_is_drawn_once(self) -> None:
        case = Case(spread=3600.0)
        async with case.running():
            case.rotate()
            await settle()
            due = case.renewal.next_at
            for minutes in (1, 2, 3):
                case.spread = 3600.0 * minutes
                case.renewal.poke()
                await settle()
                assert case.renewal.next_at == due

    async def test_is_never_later_than_the_ordinary_date(self) -> None:
        case = Case(spread=1e9)
        async with case.running():
            ordinary = case.renewal.next_at
            case.rotate()
            await settle()
            assert case.renewal.next_at == ordinary

    async def test_after_a_start_nothing_is_spread(self) -> None:
        case = Case(spread=3600.0)
        case.site.certify(case.member.keyring, KIND)
        case.rotate()
        async with case.running():
            assert case.reasons == ["older root"]

    async def test_an_issuer_that_lags_behind_is_not_asked_in_a_loop(self) -> None:
        case = Case()
        async with case.running():
            case.root = 0
            case.rotate()
            await settle(500)
            assert case.reasons == ["first", "older root"]
            await case.clock.advance(HOUR)
            assert len(case.reasons) < 20
            gaps = [b - a for a, b in zip(case.dates[1:], case.dates[2:], strict=False)]
            assert gaps[-1] == LAST_RETRY
            case.root = -1
            await case.clock.advance(LAST_RETRY)
            held = case.member.keyring.credential(KIND)
            assert held is not None
            assert held.root == case.site.root_id()
            count = len(case.reasons)
            await case.clock.advance(DAY)
            assert len(case.reasons) == count
