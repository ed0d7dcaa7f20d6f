"""A client and a registry on a network that loses answers and brings requests late (F1, F2)."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.client.memory import Memory
from agents.client.registration import FULL_IN_A_ROW, Registering
from agents.member.member import Member
from agents.member.uplink import Uplink
from agents.responder.neighbourhoods import Policy
from agents.responder.registry import Registry
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.names import Role
from protocol.messages import Done, Message, Register, Registered
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock
from tests.support.components import MemoryClients
from tests.support.deployment import Deployment
from tests.support.files import MemoryFiles

PATH = Path("/state/registration.json")
ADDRESS = "127.0.1.11"


@cache
def site() -> Deployment:
    return Deployment()


class Between:
    """What lies between a client and its responder, and both of them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.files = MemoryFiles()
        self.store = MemoryClients()
        self.member: Member = site().member(Role.CLIENT, clock=self.clock, relay=self.relay)
        self.id = self.member.id
        self.peer = site().peer(Role.CLIENT, id=self.id)
        self.link = FakeChannel(self.carry, peer=site().peer(Role.SERVER))
        self.port = 1
        self.late: list[Register] = []
        self.fate = "answered"
        self.registry = self.responder()
        self.registering = self.client()

    def responder(self) -> Registry:
        return Registry(
            self.store,
            responder=bytes(16),
            clock=self.clock,
            log=logs.get_logger(),
            policy=Policy(),
            longest=90.0,
            settings=dict,
        )

    def client(self) -> Registering:
        return Registering(
            self.member,
            cast(Uplink, None),
            Memory(PATH, self.files),
            facts=self.facts,
            lost=list,
            placed=lambda _answer: None,
            interval=(30.0, 90.0),
        )

    def facts(self) -> dict[str, Any]:
        return {"host": "one", "version": "1", "address": ADDRESS, "port": self.port}

    async def relay(self, *_: object) -> None:
        """Nobody is beside it."""

    async def carry(self, _channel: Channel, message: Message) -> Message:
        if not isinstance(message, Register):
            return Done()
        if self.fate == "late":
            self.late.append(message)
            raise UnavailableError("no answer in time")
        answer = await self.registry.register(self.peer, ADDRESS, message)
        assert isinstance(answer, Registered) or answer.reason == "full"
        if self.fate == "unanswered":
            raise UnavailableError("no answer in time")
        return answer

    async def happens(self, what: str) -> None:
        match what:
            case "":
                pass
            case "moves":
                self.port += 1
            case "client restarts":
                self.registering = self.client()
            case "responder restarts":
                self.registry = self.responder()
                await self.registry.load()
            case "arrives":
                if self.late:
                    await self.registry.register(self.peer, ADDRESS, self.late.pop(0))
            case "arrives, the newest first":
                if self.late:
                    await self.registry.register(self.peer, ADDRESS, self.late.pop())
            case _:
                self.fate = what
                await self.register()

    async def register(self) -> None:
        try:
            await self.registering._register(self.link.channel)
        except UnavailableError:
            assert self.fate != "answered"

    @property
    def known_port(self) -> int:
        row = self.registry.row(self.id)
        assert row is not None
        return row.record.port


EVENTS = ["", "moves", "moves", "client restarts", "responder restarts"]
FATES = ["answered", "late", "late", "unanswered"]
ARRIVALS = st.lists(
    st.sampled_from(["arrives", "arrives, the newest first"]), max_size=2 * FULL_IN_A_ROW
)
STORY = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.sampled_from(FATES), st.booleans()), max_size=10
)


@settings(max_examples=200)
@given(
    st.sampled_from([0, 3]),
    STORY,
    st.lists(ARRIVALS, min_size=1 + FULL_IN_A_ROW, max_size=1 + FULL_IN_A_ROW),
)
@pytest.mark.req("F1", "F2")
def test_whatever_is_lost_or_late_it_stays_who_it_is_and_is_known_as_it_is(
    before: int, story: list[tuple[str, str, bool]], end: list[list[str]]
) -> None:
    """What is late arrives before, between or after its next registrations."""

    async def told() -> None:
        between = Between()
        for _ in range(before):
            await between.happens("answered")
        for event, fate, something_arrives in story:
            await between.happens(event)
            await between.happens(fate)
            if something_arrives:
                await between.happens("arrives")
        for arrivals in end:
            for each in arrivals:
                await between.happens(each)
            await between.happens("answered")
        for _ in range(len(between.late)):
            await between.happens("arrives")
        assert between.known_port == between.port
        assert between.member.id == between.id

    asyncio.run(told())
