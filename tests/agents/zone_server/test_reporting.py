"""Telling the server about outside clients: what changed, and everything to a new hub."""

import asyncio
from dataclasses import replace

import pytest

from agents.responder.neighbourhoods import Policy
from agents.responder.records import AckRecord
from agents.responder.registry import MISSED, Registry
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.zone_server.reporting import BATCH, MOST_FAILURES, SOON, Reporting
from pki import keys
from pki.acknowledgements import make_ack, verify_ack
from pki.names import Role
from protocol.messages import Done, Message, Refused, Register, Report
from tests.support.channels import Answering, FakeChannel, done
from tests.support.clock import START, FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.logs import logged
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
        self.ids: dict[int, bytes] = {}
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
        peer = self.site.peer(Role.CLIENT, id=self.id(number))
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
        row = self.registry.row(self.id(number))
        return b"" if row is None else row.record.token_out or b""

    def id(self, number: int) -> bytes:
        """Id of a client: that of its key, if it has acknowledged."""
        return self.ids.get(number, number.to_bytes(16))

    def ack(self, number: int = 1, n: int = 0) -> AckRecord:
        """What a client says that has not registered yet."""
        keyring = self.site.member(Role.CLIENT).keyring
        last = self.site.chain.last
        spki, signature = make_ack(keyring.identity, self.site.slot, n, last.id)
        self.ids[number] = keyring.id
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
    await case.register(1)
    case.reporting.acknowledged(record)
    await case.report()
    (ack,) = reports(hub)[0].acks
    assert verify_ack(ack.spki, ack.signature, ack.slot, ack.n, ack.entry_id) == record.component


@pytest.mark.req("B12")
async def test_an_acknowledgement_waits_for_its_client_to_register() -> None:
    """The server takes no word of a client that it does not know, and asks for none again."""
    case = Case()
    hub = case.connect()
    case.reporting.acknowledged(case.ack())
    await case.report()
    assert [ack for report in reports(hub) for ack in report.acks] == []
    await case.register(1)
    await case.report()
    (told,) = [report for report in reports(hub) if report.acks]
    assert [row.id for row in told.clients] == [case.id(1)]


async def test_without_a_hub_it_is_kept_until_there_is_one() -> None:
    case = Case()
    case.reporting.acknowledged(case.ack())
    await case.register(1)
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
    case.reporting.acknowledged(case.ack())
    await case.register(1)
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
    await case.register(1)
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
    case.reporting.acknowledged(case.ack())
    for number in (1, 2, 3):
        await case.register(number)
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
    await case.register(1)
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


def stumbling(over: bytes, answer: Message) -> Answering:
    """A server that gives this answer to each report that has something of one component."""

    async def answering(_channel: Channel, message: Message) -> Message:
        assert isinstance(message, Report)
        ids = [row.id for row in message.clients]
        ids += [keys.component_id(ack.spki) for ack in message.acks]
        return answer if over in ids else Done()

    return answering


FAILED = Refused(reason="internal", text="the other side failed; its log says how")
NEVER = Refused(reason="envelope", text="a row that is none")


@pytest.mark.parametrize("answer", [FAILED, NEVER], ids=["failed", "for good"])
async def test_one_row_that_is_not_taken_holds_up_nobody_else(answer: Refused) -> None:
    case = Case()
    for number in range(1, 2 * BATCH):
        await case.register(number)
    bad = (BATCH // 3).to_bytes(16)
    with logged() as lines:
        hub = case.connect(stumbling(bad, answer))
        await case.report()
        taken = {r.id for one in reports(hub) if bad not in ids_of(one) for r in one.clients}
        assert taken == {n.to_bytes(16) for n in range(1, 2 * BATCH)} - {bad}
        first = len(reports(hub))
        await case.report()
    again = [ids_of(one) for one in reports(hub)[first:]]
    said = [(line["event"], line["reason"], line.get("client")) for line in lines]
    if answer is NEVER:
        assert said == [("report.dropped", answer.text, bad.hex())]
        assert again == [[]]
    else:
        assert said == [("report.failed", answer.text, None)]
        assert again == [[bad]]


def ids_of(report: Report) -> list[bytes]:
    return [row.id for row in report.clients]


@pytest.mark.req("B12")
async def test_an_acknowledgement_of_a_client_that_is_elsewhere_waits_for_its_registration() -> (
    None
):
    case = Case()
    moved, other = case.ack(1), case.ack(2)
    for ack in (moved, other):
        case.reporting.acknowledged(ack)
    for number in (1, 2):
        await case.register(number)
    elsewhere = Refused(reason="elsewhere", text="the client still reports to another responder")

    async def answering(_channel: Channel, message: Message) -> Message:
        assert isinstance(message, Report)
        mine = [ack for ack in message.acks if ack.spki == moved.spki]
        return elsewhere if mine else Done()

    with logged() as lines:
        hub = case.connect(answering)
        await case.report()
        assert [ack.spki for report in reports(hub) for ack in report.acks].count(other.spki) > 0
        first = len(reports(hub))
        await case.report()
        assert [report.acks for report in reports(hub)[first:]] == [[]]
        hub = case.connect()  # the same server, that now knows better
        await case.register(2)
        await case.report()
        assert [report.acks for report in reports(hub)] == [[]]
        await case.register(1)
        await case.report()
    assert [ack.spki for report in reports(hub) for ack in report.acks] == [moved.spki]
    assert not [line for line in lines if str(line["event"]).startswith("report.")]


async def test_a_client_that_changes_is_told_again_though_it_was_refused() -> None:
    case = Case()
    await case.register(1)
    case.connect(stumbling((1).to_bytes(16), NEVER))
    await case.report()
    hub = case.connect()
    await case.register(1, host="renamed")
    await case.report()
    assert [row.host for report in reports(hub) for row in report.clients] == ["renamed"]


async def test_an_acknowledgement_that_is_refused_for_good_is_dropped_alone() -> None:
    case = Case()
    bad, good = case.ack(1), case.ack(2)
    for number in (1, 2):
        await case.register(number)
    for ack in (bad, good):
        case.reporting.acknowledged(ack)
    refusal = Refused(reason="signature", text="not by this key")
    hub = case.connect(stumbling(bad.component, refusal))
    await case.report()
    await case.report()
    last = reports(hub)[-1]
    assert (last.clients, last.acks) == ([], [])
    taken = [ack.spki for one in reports(hub) for ack in one.acks if bad.spki not in spkis(one)]
    assert taken == [good.spki]


def spkis(report: Report) -> list[bytes]:
    return [ack.spki for ack in report.acks]


async def test_a_server_that_fails_at_everything_is_not_asked_for_each_row() -> None:
    async def failing(_channel: Channel, _message: Message) -> Message:
        return FAILED

    case = Case()
    for number in range(1, 2 * BATCH):
        await case.register(number)
    with logged() as lines:
        hub = case.connect(failing)
        for _ in range(3):
            await case.report()
    assert len(reports(hub)) <= 3 * 4 * MOST_FAILURES
    assert [line["event"] for line in lines] == ["report.failed"]
    assert len(case.registry.changed) == 2 * BATCH - 1  # all of it is still due


async def test_a_reason_is_said_once_until_it_is_over() -> None:
    def refusing(text: str) -> Answering:
        async def refuse(_channel: Channel, _message: Message) -> Message:
            return Refused(reason="unavailable", text=text)

        return refuse

    case = Case()
    await case.register(1)
    with logged() as lines:
        for text in ("no server", "no server", "too many", "no server"):
            case.connect(refusing(text))
            await case.report()
        case.connect()
        await case.report()
        case.connect(refusing("no server"))
        await case.report()
    said = [line["reason"] for line in lines if line["event"] == "report.failed"]
    assert said == ["no server", "too many", "no server"]
    assert {line["level"] for line in lines} == {"warning"}


async def test_a_server_that_says_when_to_come_back_is_asked_then() -> None:
    async def later(_channel: Channel, _message: Message) -> Message:
        return Refused(reason="unavailable", text="no server", retry_after=2.0)

    case = Case()
    await case.register(1)
    hub = case.connect(later)
    await case.report()
    case.reporting.poke()
    await case.clock.advance_network(1.0)
    assert len(reports(hub)) == 1
    await case.clock.advance_network(1.0 + SOON)
    assert len(reports(hub)) == 2


async def test_a_row_that_changes_while_it_is_reported_is_reported_again() -> None:
    case = Case()
    hosts: list[str] = []

    async def meanwhile(_channel: Channel, message: Message) -> Message:
        assert isinstance(message, Report)
        hosts.extend(row.host for row in message.clients)
        if hosts == ["one"]:
            await case.register(1, host="two")
        return Done()

    await case.register(1, host="one")
    case.connect(meanwhile)
    await case.report()
    assert hosts == ["one", "two"]
