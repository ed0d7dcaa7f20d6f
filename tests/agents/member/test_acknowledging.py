"""What is not taken is acknowledged again, until coverage knows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agents.member.acknowledging import SOON, Acknowledging
from agents.member.member import Member
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from protocol.messages import Ack, Done, Message, Pong, Refused
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.logs import logged

KIND = Kind.ZONE_SERVER_TLS
NO_SERVER = Refused(reason="unavailable", text="no server", retry_after=2.0)


class Case:
    """A zone server and the newest of its links to hubs, whose answer a test decides."""

    def __init__(self) -> None:
        self.site, self.clock = Deployment(), FakeClock()
        self.member: Member = self.site.member(Role.ZONE_SERVER, clock=self.clock)
        self.site.certify(self.member.keyring, KIND)
        self.answer: Message | None = Done()
        self.heard: list[Ack] = []
        self.link: FakeChannel | None = None
        self.acknowledging = Acknowledging(
            self.member.acknowledgement,
            self.member.trust,
            link=lambda: None if self.link is None else self.link.channel,
            clock=self.clock,
            log=logs.get_logger(),
        )

    async def hear(self, _channel: Channel, message: Message) -> Message:
        assert isinstance(message, Ack)
        self.heard.append(message)
        if self.answer is None:
            raise UnavailableError("no answer")
        return self.answer

    async def join(self) -> None:
        self.link = FakeChannel(self.hear, peer=self.site.peer(Role.HUB))
        self.acknowledging.poke()
        await self.soon()

    async def soon(self) -> None:
        await settle()
        await self.clock.advance_network(SOON)


@asynccontextmanager
async def running() -> AsyncIterator[Case]:
    case = Case()
    task = asyncio.ensure_future(case.acknowledging.run())
    try:
        await settle()
        yield case
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.req("B12")
@pytest.mark.parametrize("answer", [NO_SERVER, Refused(reason="busy"), Pong(id=0), None])
async def test_what_is_not_taken_is_said_again_over_the_same_link(answer: Message | None) -> None:
    async with running() as case:
        case.answer = answer
        await case.join()
        assert len(case.heard) == 1
        case.answer = Done()
        await case.clock.advance_network(10)
        # Twice: the word that was not taken may still arrive after the next.
        assert len(case.heard) == 3
        await case.clock.advance_network(3600)
        assert len(case.heard) == 3


@pytest.mark.req("B12")
async def test_a_new_entry_and_a_new_certificate_are_said_over_a_link_that_stands() -> None:
    async with running() as case:
        await case.join()
        case.site.rotate()
        case.site.teach(case.member.trust)
        await case.soon()
        assert [ack.n for ack in case.heard] == [0, 1]
        case.site.certify(case.member.keyring, KIND)
        case.acknowledging.poke()
        await case.soon()
        assert case.heard[-1].credentials[0].root == case.site.root_id()
        assert len(case.heard) == 3


async def test_changes_that_come_together_are_one_acknowledgement() -> None:
    async with running() as case:
        case.link = FakeChannel(case.hear, peer=case.site.peer(Role.HUB))
        case.site.rotate()
        case.site.teach(case.member.trust)
        case.acknowledging.poke()
        await settle()
        case.site.certify(case.member.keyring, KIND)
        case.acknowledging.poke()
        await case.soon()
        await case.clock.advance_network(60)
        assert len(case.heard) == 1


async def test_what_changes_while_it_is_said_is_said_next() -> None:
    async with running() as case:
        held = asyncio.Event()

        async def slowly(channel: Channel, message: Message) -> Message:
            answer = await case.hear(channel, message)
            await held.wait()
            return answer

        case.link = FakeChannel(slowly, peer=case.site.peer(Role.HUB))
        case.acknowledging.poke()
        await case.soon()
        case.site.rotate()
        case.site.teach(case.member.trust)
        held.set()
        await case.soon()
        assert [ack.n for ack in case.heard] == [0, 1]


async def test_a_new_link_does_not_wait_for_the_one_before() -> None:
    async with running() as case:
        case.answer = Refused(reason="unavailable", text="no server", retry_after=600.0)
        await case.join()
        case.answer = Done()
        # Twice: the older word may arrive after the first.
        await case.join()
        assert len(case.heard) == 3
        await case.clock.advance_network(3600)
        assert len(case.heard) == 3


async def test_a_responder_that_says_when_is_left_alone_until_then() -> None:
    async with running() as case:
        case.answer = Refused(reason="unavailable", text="no server", retry_after=100.0)
        await case.join()
        await case.clock.advance_network(99)
        assert len(case.heard) == 1
        await case.clock.advance_network(10)
        assert len(case.heard) == 2


async def test_without_a_link_nothing_is_said_until_there_is_one() -> None:
    async with running() as case:
        case.acknowledging.poke()
        await case.soon()
        case.link = FakeChannel(case.hear)  # one that has proven nobody
        case.acknowledging.poke()
        await case.soon()
        assert case.heard == []
        await case.join()
        assert len(case.heard) == 1


async def test_why_it_waits_is_one_line_until_it_is_taken() -> None:
    async with running() as case:
        with logged() as lines:
            case.answer = NO_SERVER
            await case.join()
            await case.clock.advance_network(300)
            case.answer = Done()
            await case.clock.advance_network(120)
            case.answer = NO_SERVER
            case.site.rotate()
            case.site.teach(case.member.trust)
            await case.soon()
        assert [line["reason"] for line in lines if line["event"] == "acknowledgement.waiting"] == [
            "no server",
            "no server",
        ]
