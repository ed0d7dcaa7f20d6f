"""Telling the server about outside clients: what changed, and everything to a new hub."""

import asyncio
from dataclasses import replace

import pytest

from agents.responder.neighbourhoods import Policy
from agents.responder.records import AckRecord
from agents.responder.registry import MISSED, Registry
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.zone_server.reporting import BATCH, SOON, Reporting
from pki.acknowledgements import make_ack, verify_ack
from pki.names import Role
from protocol.messages import Done, Message, Refused, Register, Report
from tests.support.channels import Answering, FakeChannel, done
from tests.support.clock import START, FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.responder import MemoryRecords


class Case:
    def __init__(self) -> None:
        self.site = Deployment()
        self.clock = FakeClock()
        self.registry = Registry(
            MemoryRecords(),
            responder=bytes(16),
            clock=self.clock,
            log=logs.get_logger(),
            policy=Policy(),
            longest=90.0,
            settings=dict,
        )
        self.hub: FakeChannel | None = None
        self.signed = 7
        self.reporting = Reporting(
            self.registry,
            hub=lambda: None if self.hub is None else self.hub.channel,
            signed=lambda: self.signed,
            clock=self.clock,
            log=logs.get_logger(),
        )
        self.task = asyncio.ensure_future(self.reporting.run())

    async def register(self, number: int, *, host: str = "host") -> None:
        peer = self.site.peer(Role.CLIENT, id=number.to_bytes(16))
        await self.registry.register(
            peer,
            "192.0.2.7",
            Register(
                full=True,
                host=host,
                port=1,
                address=f"192.0.2.{number % 250}",
                version="1",
                token=self.token(number),
            ),
        )

    def token(self, number: int) -> bytes:
        row = self.registry.row(number.to_bytes(16))
        return b"" if row is None else row.record.token_out or b""

    def ack(self, n: int = 0) -> AckRecord:
        keyring = self.site.member(Role.CLIENT).keyring
        last = self.site.chain.last
        spki, signature = make_ack(keyring.identity, self.site.slot, n, last.id)
        return AckRecord(
            component=keyring.id,
            slot=self.site.slot,
            n=n,
            entry_id=last.id,
            spki=spki,
            signature=signature,
            role="client",
            credentials=(),
            at=START,
        )

    def connect(self, answering: Answering = done) -> FakeChannel:
        self.hub = FakeChannel(answering)
        return self.hub

    async def report(self) -> None:
        """Have it look, and let it work."""
        self.reporting.poke()
        await settle()
        await self.clock.advance_network(SOON)


def reports(hub: FakeChannel) -> list[Report]:
    return [message for message in hub.asked if isinstance(message, Report)]


@pytest.mark.req("F3")
async def test_a_client_that_registered_is_reported_once() -> None:
    case = Case()
    hub = case.connect()
    await case.register(1, host="one")
    await case.report()
    await case.report()
    (row,) = reports(hub)[0].clients
    assert (row.id, row.host, row.observed, row.status) == (
        (1).to_bytes(16),
        "one",
        "192.0.2.7",
        "present",
    )
    assert row.root == case.site.root_id()
    assert all(report.clients == [] for report in reports(hub)[1:])


@pytest.mark.req("F3")
async def test_a_client_that_went_silent_is_reported_once() -> None:
    case = Case()
    await case.register(1)
    hub = case.connect()
    await case.report()
    await case.clock.advance_network(MISSED * 90.0 + 1)
    await case.report()
    await case.report()
    said = [row.status for report in reports(hub) for row in report.clients]
    assert said == ["present", "offline"]


async def test_what_changed_is_reported_again() -> None:
    case = Case()
    hub = case.connect()
    await case.register(1, host="one")
    await case.report()
    await case.register(1, host="two")
    await case.report()
    assert [r.host for report in reports(hub) for r in report.clients] == ["one", "two"]


@pytest.mark.req("B12")
async def test_an_acknowledgement_is_handed_on_unchanged() -> None:
    case = Case()
    hub = case.connect()
    record = case.ack()
    case.reporting.acknowledged(record)
    await case.report()
    (ack,) = reports(hub)[0].acks
    assert verify_ack(ack.spki, ack.signature, ack.slot, ack.n, ack.entry_id) == record.component


async def test_without_a_hub_it_is_kept_until_there_is_one() -> None:
    case = Case()
    await case.register(1)
    case.reporting.acknowledged(case.ack())
    await case.report()
    hub = case.connect()
    await case.report()
    assert [len(r.clients) for r in reports(hub)] == [1]
    assert [len(r.acks) for r in reports(hub)] == [1]


@pytest.mark.parametrize("how", ["refused", "broken"])
async def test_what_was_not_taken_is_reported_again(how: str) -> None:
    async def refuse(_channel: Channel, _message: Message) -> Message:
        return Refused(reason="unavailable")

    case = Case()
    await case.register(1)
    case.reporting.acknowledged(case.ack())
    first = case.connect(refuse)
    if how == "broken":
        first.lose()
    await case.report()
    second = case.connect()
    await case.report()
    (report,) = reports(second)
    assert (len(report.clients), len(report.acks)) == (1, 1)


async def test_what_came_while_it_reported_is_not_forgotten() -> None:
    case = Case()
    older = case.ack()
    newer = replace(older, n=1)
    told: list[int] = []

    async def meanwhile(_channel: Channel, message: Message) -> Message:
        assert isinstance(message, Report)
        told.extend(ack.n for ack in message.acks)
        if told == [0]:
            case.reporting.acknowledged(newer)
        return Done()

    case.connect(meanwhile)
    case.reporting.acknowledged(older)
    await case.report()
    assert told == [0, 1]


async def test_a_new_hub_is_told_everything() -> None:
    case = Case()
    case.connect()
    for number in (1, 2, 3):
        await case.register(number)
    case.reporting.acknowledged(case.ack())
    await case.report()
    hub = case.connect()
    case.reporting.everything()
    await case.report()
    (report,) = reports(hub)
    assert len(report.clients) == 3
    assert len(report.acks) == 1


async def test_what_the_last_run_kept_is_told_to_the_first_hub() -> None:
    case = Case()
    case.reporting.load([case.ack()])
    hub = case.connect()
    await case.report()
    assert [len(r.acks) for r in reports(hub)] == [1]


async def test_many_are_reported_in_batches() -> None:
    case = Case()
    for number in range(1, 2 * BATCH + 11):
        await case.register(number)
    hub = case.connect()
    await case.report()
    assert [len(r.clients) for r in reports(hub)] == [BATCH, BATCH, 10]
    assert len({r.id for report in reports(hub) for r in report.clients}) == 2 * BATCH + 10


@pytest.mark.req("A6")
async def test_each_report_says_how_many_certificates_were_signed() -> None:
    case = Case()
    hub = case.connect()
    await case.report()
    case.signed = 9
    await case.report()
    assert [report.issued for report in reports(hub)] == [7, 9]
