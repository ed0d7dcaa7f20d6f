"""Registering: what is said, when, and what is done with the answer (F1, F2)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agents.client.memory import Memory, Registration
from agents.client.registration import FULL_IN_A_ROW, FULL_MAX, MAX_LOST, SOON, Registering
from agents.member.member import Member
from agents.member.uplink import Uplink
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from protocol.messages import (
    Ack,
    Done,
    HeadNotice,
    LedgerGet,
    Message,
    Neighbour,
    Refused,
    Register,
    Registered,
)
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.files import MemoryFiles
from tests.support.logs import logged
from tests.support.loops import SteppedLoop, stepped

PATH = Path("/state/registration.json")
WINDOW = "PKIClientTLSKeyRenewalWindowHours"


class FakeUplink:
    """Runs each exchange over the link that it has."""

    def __init__(self, link: FakeChannel) -> None:
        self.link = link

    async def visit(self, exchange: Callable[[Channel], Awaitable[None]]) -> None:
        await exchange(self.link.channel)


class Case:
    def __init__(self, *, interval: tuple[float, float] = (30.0, 90.0)) -> None:
        self.site = Deployment()
        self.clock = FakeClock()
        self.files = MemoryFiles()
        self.passed_on: list[HeadNotice] = []
        self.member: Member = self.site.member(Role.CLIENT, clock=self.clock, relay=self.relay)
        self.site.certify(self.member.keyring, Kind.CLIENT_TLS)
        self.peer = self.site.peer(Role.SERVER)
        self.link = FakeChannel(self.answer, peer=self.peer)
        self.uplink = FakeUplink(self.link)
        self.facts: dict[str, Any] = {"host": "one", "port": 7, "version": "1", "address": "a"}
        self.lost: list[bytes] = []
        self.placed: list[Registered] = []
        self.tokens = 0
        self.refusals: list[Refused] = []
        self.unanswered = 0
        self.head: bytes | None = None
        self.forward: Neighbour | None = None
        self.memory = Memory(PATH, self.files)
        self.registering = Registering(
            self.member,
            cast(Uplink, self.uplink),
            self.memory,
            facts=lambda: dict(self.facts),
            lost=self.take_lost,
            placed=self.placed.append,
            interval=interval,
        )
        self.task: asyncio.Future[None] | None = None

    async def relay(self, _source: Channel | None, notice: HeadNotice) -> None:
        self.passed_on.append(notice)

    def take_lost(self) -> list[bytes]:
        lost, self.lost = self.lost, []
        return lost

    async def answer(self, _channel: Channel, message: Message) -> Message:
        match message:
            case Register():
                if self.refusals:
                    return self.refusals.pop(0)
                if self.unanswered:
                    self.unanswered -= 1
                    raise UnavailableError("no answer in time")
                self.tokens += 1
                return Registered(
                    token=bytes([self.tokens]),
                    observed="192.0.2.1",
                    forward=self.forward,
                    settings={WINDOW: str(self.tokens)},
                    head=self.head,
                    spread=7.0,
                )
            case _:
                return Done()

    @property
    def said(self) -> list[Register]:
        return [m for m in self.link.asked if isinstance(m, Register)]

    async def start(self) -> None:
        """Have it register for the first time."""
        self.task = asyncio.ensure_future(self.registering.run())
        await settle()

    async def settle(self) -> None:
        """Have it register until it says changes only."""
        await self.start()
        for _ in range(FULL_IN_A_ROW - 1):
            assert (await self.again()).full

    async def again(self) -> Register:
        """Have it register once more, and return what it said."""
        self.registering.poke()
        await settle()
        await self.clock.advance_network(SOON)
        return self.said[-1]


@stepped
async def test_the_first_registration_says_everything(loop: SteppedLoop) -> None:
    case = Case()
    await case.start()
    (first,) = case.said
    assert first.full
    assert (first.host, first.port, first.version, first.address) == ("one", 7, "1", "a")
    assert first.token == b""
    assert case.registering.done == 1
    assert case.registering.responder == case.peer.name.id


@pytest.mark.req("F2")
@stepped
async def test_the_next_ones_say_what_changed(loop: SteppedLoop) -> None:
    case = Case()
    await case.settle()
    same = await case.again()
    assert not same.full
    assert (same.host, same.port, same.version, same.address) == (None, None, None, None)
    case.facts["port"] = 8
    changed = await case.again()
    assert (changed.host, changed.port) == (None, 8)
    assert (await case.again()).port is None


@pytest.mark.req("F2")
@stepped
async def test_what_was_not_taken_is_said_again(loop: SteppedLoop) -> None:
    case = Case()
    await case.start()
    case.facts["port"] = 8
    case.refusals = [Refused(reason="busy", text="later", retry_after=1.0)]
    await case.again()
    await case.clock.advance_network(5.0)
    assert [m.port for m in case.said] == [7, 8, 8]


@pytest.mark.req("F2")
@stepped
async def test_registers_at_random_between_the_bounds(loop: SteppedLoop) -> None:
    case = Case(interval=(30.0, 90.0))
    await case.start()
    for count in range(1, 6):
        assert len(case.said) == count
        await loop.pass_time(29.0)
        assert len(case.said) == count
        await loop.pass_time(62.0)


@pytest.mark.req("F2")
@stepped
async def test_says_everything_after_six_hours_at_the_latest(loop: SteppedLoop) -> None:
    case = Case()
    await case.settle()
    assert not (await case.again()).full
    case.clock.move_network(2 * 3600 - 1)
    assert not (await case.again()).full
    case.clock.move_network(FULL_MAX)
    full = await case.again()
    assert full.full
    assert full.host == "one"
    assert not (await case.again()).full


@pytest.mark.req("F2")
@stepped
async def test_says_everything_twice_after_one_that_had_no_answer(loop: SteppedLoop) -> None:
    """It may be taken late: before the next one, or between that and the one after it."""
    case = Case()
    await case.settle()
    case.unanswered = 1
    case.facts["port"] = 8
    assert not (await case.again()).full
    await case.clock.advance_network(5.0)  # it tries again by itself
    assert case.registering.done == FULL_IN_A_ROW + 1
    again = case.said[-1]
    assert again.full
    assert again.token == case.said[-2].token
    assert (again.host, again.port) == ("one", 8)
    assert (await case.again()).full
    assert not (await case.again()).full


@pytest.mark.req("F2")
@stepped
async def test_says_everything_twice_at_each_start_and_responder(loop: SteppedLoop) -> None:
    case = Case()
    await case.settle()
    assert not (await case.again()).full
    other = FakeChannel(case.answer, peer=case.site.peer(Role.SERVER, id=bytes(16)))
    here, case.link = case.link, other
    for link in (other, here):
        case.link = case.uplink.link = link
        assert [(await case.again()).full for _ in range(3)] == [True, True, False]


@stepped
async def test_several_reasons_at_once_are_one_registration(loop: SteppedLoop) -> None:
    case = Case()
    await case.start()
    for _ in range(5):
        case.registering.poke()
        await settle(3)
    await case.clock.advance_network(SOON)
    assert len(case.said) == 2


@stepped
async def test_another_responder_is_told_everything_and_shown_no_token(loop: SteppedLoop) -> None:
    case = Case()
    await case.settle()
    other = FakeChannel(case.answer, peer=case.site.peer(Role.SERVER, id=bytes(16)))
    case.uplink.link = other
    case.registering.poke()
    await settle()
    await case.clock.advance_network(SOON)
    (said,) = [m for m in other.asked if isinstance(m, Register)]
    assert said.full
    assert said.host == "one"
    assert said.token == b""


@stepped
async def test_a_responder_that_asks_for_everything_gets_it_at_once(loop: SteppedLoop) -> None:
    case = Case()
    await case.settle()
    case.refusals = [Refused(reason="full", retry_after=0.0)]
    await case.again()
    assert [m.full for m in case.said] == [True, True, False, True]
    assert case.registering.done == 3


class TestToken:
    @pytest.mark.req("F1")
    def test_the_last_one_is_shown(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            assert (await case.again()).token == b"\x01"
            assert (await case.again()).token == b"\x02"

        test()

    @pytest.mark.req("F1")
    def test_is_on_disk_for_the_next_start(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            again = Memory(PATH, case.files).last
            assert again.responder == case.peer.name.id.hex()
            assert again.token == "01"
            assert again.settings == {WINDOW: "1"}

        test()

    def test_is_in_no_repr(self) -> None:
        assert "c0ffee" not in repr(Registration(token="c0ffee"))
        assert "c0ffee" not in repr(Register(token=bytes.fromhex("c0ffee")))


class TestCloned:
    @pytest.mark.req("F1")
    def test_becomes_another_component(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            before = case.member.id
            case.refusals = [Refused(reason="cloned", text="another machine has it")]
            with logged() as lines:
                await case.again()
            assert case.member.id != before
            assert case.member.keyring.credentials == ()
            assert case.memory.last == Registration()
            assert [e["event"] for e in lines] == ["identity.renewed", "registration.failed"]
            assert case.link.is_closed, "the old identity's link is used no more"

            # The next registration is the new component's: everything, and no token.
            case.link = case.uplink.link = FakeChannel(case.answer, peer=case.peer)
            await case.clock.advance_network(2.0)
            (said,) = case.said
            assert said.full
            assert said.token == b""

        test()


class TestLost:
    def test_neighbours_are_reported_once(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            case.lost = [bytes(16)]
            assert (await case.again()).lost == [bytes(16)]
            assert (await case.again()).lost == []

        test()

    def test_a_report_that_was_not_taken_is_made_again(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            case.lost = [bytes(16)]
            case.refusals = [Refused(reason="busy"), Refused(reason="full", retry_after=0.0)]
            await case.again()
            await case.clock.advance_network(10.0)
            assert [m.lost for m in case.said[1:]] == [[bytes(16)]] * 3
            assert (await case.again()).lost == []

        test()

    def test_more_than_one_registration_takes_are_for_the_next(self) -> None:
        @stepped
        async def test(loop: SteppedLoop) -> None:
            case = Case()
            await case.start()
            case.lost = [bytes([n] * 16) for n in range(MAX_LOST + 3)]
            lost = list(case.lost)
            assert (await case.again()).lost == lost[:MAX_LOST]
            assert (await case.again()).lost == lost[MAX_LOST:]

        test()


@pytest.mark.req("B12")
@stepped
async def test_an_acknowledgement_that_is_due_goes_first(loop: SteppedLoop) -> None:
    case = Case()
    await case.start()
    assert [type(m) for m in case.link.asked] == [Ack, Register]
    await case.again()
    case.site.rotate()
    case.site.teach(case.member.trust)
    await case.again()
    assert [type(m) for m in case.link.asked] == [Ack, Register, Register, Ack, Register]


@stepped
async def test_the_answer_gives_the_place(loop: SteppedLoop) -> None:
    case = Case()
    await case.start()
    assert [answer.token for answer in case.placed] == [b"\x01"]


@pytest.mark.req("B6")
@stepped
async def test_a_head_beyond_ours_is_caught_up_with(loop: SteppedLoop) -> None:
    case = Case()
    case.site.rotate()
    case.head = case.site.head
    await case.start()
    assert case.link.asked_of(LedgerGet) != []


@pytest.mark.req("B6")
@stepped
async def test_a_head_that_counts_is_passed_down_the_line(loop: SteppedLoop) -> None:
    case = Case()
    case.site.deny()
    case.head = case.site.head
    await case.start()
    assert case.passed_on == [HeadNotice(head=case.site.head, spread=7.0)]


@stepped
async def test_a_refusal_is_waited_for_as_long_as_it_says(loop: SteppedLoop) -> None:
    case = Case()
    case.refusals = [Refused(reason="busy", text="later", retry_after=40.0)]
    await case.start()
    await case.clock.advance_network(39.0)
    assert len(case.said) == 1
    await case.clock.advance_network(3.0)
    assert len(case.said) == 2


@pytest.mark.req("E4", "E5")
@stepped
async def test_of_an_answer_that_no_honest_responder_gives_nothing_is_taken(
    loop: SteppedLoop,
) -> None:
    case = Case()
    await case.settle()
    before, placed = Memory(PATH, case.files).last, list(case.placed)
    case.forward = Neighbour(id=bytes(16), address="../../etc/passwd", port=1)
    case.lost = [bytes(16)]
    with logged() as lines:
        await case.again()
        await case.clock.advance_network(300.0)
    assert case.tokens > FULL_IN_A_ROW + 2, "it is asked again"
    (line,) = lines
    assert (line["event"], line["level"]) == ("answer.refused", "warning")
    assert line["link"] == case.link.id
    assert line["remote"] == list(case.link.remote)
    assert line["kind"] == case.link.kind
    assert line["fingerprint"] == case.peer.leaf.fingerprint
    assert line["type"] == "Registered"
    assert "other clients" in str(line["expected"])
    assert "'../../etc/passwd'" in str(line["reason"])
    assert line["remedy"]
    assert case.placed == placed
    assert Memory(PATH, case.files).last == before
    case.forward = None
    await case.clock.advance_network(60.0)
    assert len(case.placed) > len(placed)
    assert case.said[-1].lost == [bytes(16)] or case.said[-2].lost == [bytes(16)]
    assert case.said[-1].full, "what it had said may have been taken all the same"
    assert Memory(PATH, case.files).last != before


@pytest.mark.req("C8")
@stepped
async def test_a_full_disk_costs_no_place_in_the_line(loop: SteppedLoop) -> None:
    case = Case()
    case.files.full = True
    with logged() as lines:
        await case.start()
        await case.clock.advance_network(300.0)
    assert [e["hint"] for e in lines if e["event"] == "registration.failed"] == ["free some space"]
    assert len(case.placed) > 3
    assert {m.token for m in case.said} == {b""}, "what is not kept is not shown"
    case.files.full = False
    await case.clock.advance_network(90.0)
    assert Memory(PATH, case.files).last.token == f"{case.tokens:02x}"


@stepped
async def test_a_broken_link_is_no_end(loop: SteppedLoop) -> None:
    case = Case()
    case.link.lose()
    with logged() as lines:
        await case.start()
        assert [e["event"] for e in lines] == ["registration.failed"]
    case.link = case.uplink.link = FakeChannel(case.answer, peer=case.peer)
    await case.clock.advance_network(2.0)
    assert case.registering.done == 1
