"""One question a while over each standing link, and none forgotten (B9)."""

import asyncio

import pytest

from agents.client.pings import MAX_OPEN, Pings
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.names import Role
from protocol.codes import CloseCode
from protocol.messages import Message, Ping, Pong, Refused
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment


class Case:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.member = Deployment().member(Role.CLIENT, clock=self.clock)
        self.links: dict[str, FakeChannel] = {}
        self.pings = Pings(self.member, links=self.standing, interval=1.0)
        self.task: asyncio.Future[None] | None = None

    def standing(self) -> dict[str, Channel]:
        return {place: link.channel for place, link in self.links.items() if link.is_open}

    async def start(self) -> None:
        self.task = asyncio.ensure_future(self.pings.run())
        await settle()

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.pings.sent, self.pings.answered, self.pings.unanswered


async def answering(_channel: Channel, message: Message) -> Message:
    assert isinstance(message, Ping)
    return Pong(id=message.id)


async def silent(_channel: Channel, _message: Message) -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def numbers(*links: FakeChannel) -> list[int]:
    return [m.id for link in links for m in link.asked if isinstance(m, Ping)]


async def test_each_standing_link_is_asked_at_each_interval() -> None:
    case = Case()
    case.links = {"forward": FakeChannel(answering), "backward": FakeChannel(answering)}
    await case.start()
    await case.clock.advance_network(4.0)
    assert case.counts == (10, 10, 0)
    assert sorted(numbers(*case.links.values())) == list(range(1, 11))
    assert all(
        isinstance(m, Ping) and m.sender == case.member.id for m in case.links["forward"].asked
    )


async def test_nothing_is_asked_where_nothing_stands() -> None:
    case = Case()
    await case.start()
    await case.clock.advance_network(5.0)
    assert case.counts == (0, 0, 0)


@pytest.mark.req("B9")
async def test_what_its_link_did_not_answer_is_asked_over_the_next_one() -> None:
    case = Case()
    first = case.links["forward"] = FakeChannel(silent)
    await case.start()
    assert case.counts == (1, 0, 1)
    first.lose()
    second = case.links["forward"] = FakeChannel(answering)
    await settle()
    await case.clock.advance_network(1.0)
    assert 1 in numbers(second)
    assert case.counts == (2, 2, 0)


@pytest.mark.req("B9")
async def test_where_no_link_to_that_neighbour_is_left_another_one_carries_it() -> None:
    case = Case()
    gone = case.links["forward"] = FakeChannel(silent)
    other = case.links["responder"] = FakeChannel(answering)
    await case.start()
    gone.lose()
    await settle()
    await case.clock.advance_network(1.0)
    assert 1 in numbers(other)
    assert case.counts == (3, 3, 0)


@pytest.mark.req("B9")
async def test_a_refusal_is_no_answer() -> None:
    refused = True

    async def unwilling(_channel: Channel, message: Message) -> Message:
        return Refused(reason="unavailable") if refused else await answering(_channel, message)

    case = Case()
    case.links["forward"] = FakeChannel(unwilling)
    await case.start()
    await case.clock.advance_network(2.0)
    assert case.counts == (3, 0, 3)
    refused = False
    await case.clock.advance_network(1.0)
    assert case.counts == (4, 4, 0)


async def test_what_is_being_asked_is_not_asked_twice() -> None:
    case = Case()
    link = case.links["forward"] = FakeChannel(silent)
    await case.start()
    await case.clock.advance_network(3.0)
    assert numbers(link) == [1, 2, 3, 4]


@pytest.mark.req("B9")
async def test_a_neighbour_that_answers_none_is_left_and_what_it_was_asked_is_asked_again() -> None:
    async def ignoring(_channel: Channel, _message: Message) -> Message:
        raise UnavailableError("no answer in time")

    case = Case()
    deaf = case.links["forward"] = FakeChannel(ignoring)
    await case.start()
    await case.clock.advance_network(100.0)
    assert deaf.code is CloseCode.IDLE_TIMEOUT
    assert case.counts == (MAX_OPEN, 0, MAX_OPEN)
    assert len(deaf.asked) < 2 * MAX_OPEN**2

    deafer = case.links["forward"] = FakeChannel(ignoring)
    await case.clock.advance_network(1.0)
    assert len(deafer.asked) == MAX_OPEN, "a new link is asked before it is judged"
    await case.clock.advance_network(1.0)
    assert deafer.code is CloseCode.IDLE_TIMEOUT
    assert case.counts == (MAX_OPEN, 0, MAX_OPEN)

    case.links["forward"] = FakeChannel(answering)
    await case.clock.advance_network(1.0)
    assert case.counts == (MAX_OPEN, MAX_OPEN, 0)
    await case.clock.advance_network(1.0)
    assert case.counts == (MAX_OPEN + 1, MAX_OPEN + 1, 0)


async def test_one_that_is_slow_is_not_left_while_it_may_still_answer() -> None:
    case = Case()
    slow = case.links["forward"] = FakeChannel(silent)
    await case.start()
    await case.clock.advance_network(100.0)
    assert slow.is_open
    assert case.counts == (MAX_OPEN, 0, MAX_OPEN)
    assert len(slow.asked) == MAX_OPEN


async def test_probes_do_not_hold_the_clock() -> None:
    case = Case()
    case.links["forward"] = FakeChannel(silent)
    await case.start()
    assert case.clock.holds == 0
