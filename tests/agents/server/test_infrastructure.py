"""Envelopes: the hub vouches for who sent them, and for nothing that is in them."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from agents.responder.nonces import MAX_HELD
from agents.responder.records import ClientRecord
from agents.runtime.network import answered
from agents.server.app import Server
from agents.server.infrastructure import ELSEWHERE, KINDS, SILENT_AFTER
from agents.server.operations import ServerOperations
from agents.server.store import approvals
from agents.server.store.approvals import State
from pki import certificates
from pki.certificates import Kind
from protocol import codec
from protocol.access import relayable
from protocol.frames import FrameType
from protocol.messages import (
    MESSAGES,
    VERSION,
    Ack,
    ClientRow,
    Credential,
    Done,
    Enrol,
    HeadNotice,
    Issued,
    LedgerEntries,
    LedgerGet,
    Message,
    Nonce,
    NonceGet,
    Pending,
    Ping,
    Refused,
    Register,
    Registered,
    Relay,
    Relayed,
    Report,
)
from tests.support.clock import START, FakeClock
from tests.support.components import Component, FakeChannel, peer_of
from tests.support.logs import logged
from tests.support.servers import enrolled, prepared


async def decide(server: Server, component: Component, state: State) -> None:
    await server.store.write(
        partial(
            approvals.decide,
            identity=component.key_id,
            state=state,
            actor="unix:root",
            at=server.clock.now(),
        )
    )
    await server.approvals_changed()


async def approve(server: Server, component: Component) -> None:
    await decide(server, component, State.APPROVED)


async def approved_zone(server: Server) -> Component:
    """A zone server that has asked, and that an administrator let in."""
    zone = Component()
    await enrolled(server, zone, Kind.ZONE_SERVER_TLS)
    await approve(server, zone)
    return zone


@pytest_asyncio.fixture
async def hub(server: Server) -> FakeChannel:
    component = Component()
    await enrolled(server, component, Kind.HUB_TLS)
    await approve(server, component)
    answer = await enrolled(server, component, Kind.HUB_TLS)
    assert isinstance(answer, Issued)
    return FakeChannel(peer_of(answer.chain), remote=("127.0.0.9", 1))


async def relay(
    server: Server, hub: FakeChannel, inner: Message, *, zone: bytes = b""
) -> Message | None:
    """What comes out of the envelope that the answer is in."""
    envelope = Relay(
        zone=zone,
        proven=bool(zone),
        inner_type=inner.FRAME,
        inner=codec.encode_body(inner),
    )
    answer = await answered(server.handle(hub.channel, envelope))
    if isinstance(answer, Relayed):
        return codec.decode(FrameType(answer.inner_type), answer.inner)
    return answer


def refused(answer: Message | None, reason: str) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.reason == reason
    return answer


async def request(
    server: Server,
    hub: FakeChannel,
    component: Component,
    kind: Kind,
    *,
    zone: bytes = b"",
    exporter: bytes = bytes(32),
) -> Enrol:
    nonce = await relay(server, hub, NonceGet(kind=kind.value, spki=component.spki), zone=zone)
    assert isinstance(nonce, Nonce)
    return component.request(
        kind,
        nonce.nonce,
        deployment=server.trust.deployment,
        issuer=server.trust.newest_root,
        exporter=exporter,
    )


# --- enrolment through a hub


@pytest.mark.req("E2", "I2")
async def test_a_zone_server_enrols_through_its_hub(server: Server, hub: FakeChannel) -> None:
    zone = Component()
    message = await request(server, hub, zone, Kind.ZONE_SERVER_TLS)
    answer = await relay(server, hub, message)
    assert isinstance(answer, Pending)
    assert answer.fingerprint == zone.key_id.hex()
    await approve(server, zone)
    message = await request(server, hub, zone, Kind.ZONE_SERVER_TLS)
    answer = await relay(server, hub, message)
    assert isinstance(answer, Issued)
    # Then as itself, and for its client CA.
    message = await request(server, hub, zone, Kind.CLIENT_CA, zone=zone.id)
    answer = await relay(server, hub, message, zone=zone.id)
    assert isinstance(answer, Issued)
    assert certificates.read(answer.chain[0]).kind is Kind.CLIENT_CA


async def test_an_envelope_of_one_zone_server_asks_for_no_other(
    server: Server, hub: FakeChannel
) -> None:
    one, two = await approved_zone(server), await approved_zone(server)
    message = await request(server, hub, one, Kind.ZONE_SERVER_TLS, zone=two.id)
    refused(await relay(server, hub, message, zone=two.id), "identity")


@pytest.mark.req("A12", "E2")
@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("kind", [k for k in Kind if k.value not in KINDS[True]])
async def test_an_envelope_gets_no_certificate_but_a_zone_servers(
    server: Server, hub: FakeChannel, kind: Kind, proven: bool
) -> None:
    """Not of a client, which needs no approval, nor of a hub, not even an approved one's."""
    stranger = await approved_zone(server) if proven else Component()
    zone = stranger.id if proven else b""
    issued = server.issued
    before = await issued.count_by_issuer()
    refused(
        await relay(server, hub, NonceGet(kind=kind.value, spki=stranger.spki), zone=zone), "kind"
    )
    # A nonce from the door for clients and hubs is of no use either.
    nonce = server.enrolment.nonce(NonceGet(kind=kind.value, spki=stranger.spki), "a link")
    message = stranger.request(
        kind,
        nonce.nonce if isinstance(nonce, Nonce) else bytes(32),
        deployment=server.trust.deployment,
        issuer=server.trust.newest_root,
        exporter=bytes(32),
    )
    refused(await relay(server, hub, message, zone=zone), "kind")
    assert await issued.count_by_issuer() == before


@pytest.mark.req("E2")
async def test_a_client_ca_is_for_a_link_that_has_proven_somebody(
    server: Server, hub: FakeChannel
) -> None:
    zone = await approved_zone(server)
    message = NonceGet(kind=Kind.CLIENT_CA.value, spki=zone.spki)
    refused(await relay(server, hub, message), "kind")
    assert isinstance(await relay(server, hub, message, zone=zone.id), Nonce)


@pytest.mark.req("E2", "E5", "I2")
async def test_a_hub_speaks_for_approved_zone_servers_alone(
    server: Server, hub: FakeChannel
) -> None:
    pending, unknown, zone = Component(), Component(), await approved_zone(server)
    await enrolled(server, pending, Kind.ZONE_SERVER_TLS)
    assert hub.peer is not None
    for id in (pending.id, unknown.id, server.member.id, hub.peer.name.id):
        with logged() as lines:
            answer = refused(await relay(server, hub, Report(issued=1), zone=id), "envelope")
        assert answer.text == "no zone server that is approved has this id"
        (line,) = lines
        assert line["event"] == "request.refused"
        assert (line["type"], line["link"], line["reason"]) == ("Relay", hub.id, answer.text)
        assert line["expected"] == "a request of a zone server that is approved"
        assert not server.infrastructure.zone_present(id)
    assert server.infrastructure.zones == {}
    assert await relay(server, hub, Report(), zone=zone.id) == Done()
    # From the decision on, not from the next start.
    await decide(server, zone, State.REVOKED)
    refused(await relay(server, hub, Report(), zone=zone.id), "envelope")


@pytest.mark.req("I2")
async def test_the_servers_own_id_is_no_zone_server(server: Server, hub: FakeChannel) -> None:
    """Whoever stole the server's identity key and had it approved is no zone server."""
    own = Component(server.keyring.identity)
    await enrolled(server, own, Kind.ZONE_SERVER_TLS)
    await approve(server, own)
    row = ClientRow(id=Component().id, host="planted", status="present")
    refused(await relay(server, hub, Report(clients=[row]), zone=server.member.id), "envelope")
    assert server.registry.rows() == []


@pytest.mark.req("E4", "F3")
async def test_a_zone_server_has_a_bounded_number_of_clients(
    server: Server, hub: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.infrastructure, "_most", 3)
    zone, another = await approved_zone(server), await approved_zone(server)
    rows = [ClientRow(id=Component().id, host=f"c{n}", status="present") for n in range(5)]
    with logged() as lines:
        for batch in (rows[:2], rows[2:], rows):
            assert await relay(server, hub, Report(clients=batch), zone=zone.id) == Done()
    assert [row.record.host for row in server.registry.rows()] == ["c0", "c1", "c2"]
    (line,) = [line for line in lines if line["event"] == "report.crowded"]
    assert (line["holder"], line["reason"]) == (zone.id.hex(), "more than 3 clients")
    # What it says of those that it has is taken all the same.
    gone = msgspec.structs.replace(rows[2], status="offline")
    assert await relay(server, hub, Report(clients=[gone]), zone=zone.id) == Done()
    assert [row.present for row in server.registry.rows()] == [True, True, False]
    # Another zone server has room of its own, and a client that moves there leaves room here.
    assert await relay(server, hub, Report(clients=rows[:1]), zone=another.id) == Done()
    assert await relay(server, hub, Report(clients=rows[3:]), zone=zone.id) == Done()
    assert [row.record.host for row in server.registry.rows()] == ["c0", "c1", "c2", "c3"]


@pytest.mark.req("E4", "F3")
async def test_clients_that_an_earlier_run_was_told_of_take_room(
    server: Server, hub: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.infrastructure, "_most", 2)
    zone, newcomer = await approved_zone(server), Component()
    await server.registry.adopt([reported(Component(), zone) for _ in range(2)])
    row = ClientRow(id=newcomer.id, host="outside", status="present")
    assert await relay(server, hub, Report(clients=[row]), zone=zone.id) == Done()
    assert server.registry.responder_of(newcomer.id) is None


@pytest.mark.req("E2")
async def test_a_relayed_request_is_for_the_current_root(server: Server, hub: FakeChannel) -> None:
    old = server.trust.newest_root
    await server.new_root(bytes(32))
    zone, kind = Component(), Kind.ZONE_SERVER_TLS
    nonce = await relay(server, hub, NonceGet(kind=kind.value, spki=zone.spki))
    assert isinstance(nonce, Nonce)
    message = zone.request(
        kind,
        nonce.nonce,
        deployment=server.trust.deployment,
        issuer=old,
        exporter=bytes(32),
    )
    refused(await relay(server, hub, message), "request")
    message = await request(server, hub, zone, kind)
    assert isinstance(await relay(server, hub, message), Pending)


async def test_the_nonces_of_one_zone_server_and_of_one_hub_are_its_own(
    server: Server, hub: FakeChannel
) -> None:
    """Whoever asks for many forgets its own (`agents.responder.nonces`, rule 1)."""
    zones = [await approved_zone(server) for _ in range(2)]
    kind, other = Kind.ZONE_SERVER_TLS, FakeChannel(hub.peer, id="0ther")
    first = await request(server, hub, zones[0], kind, zone=zones[0].id)
    second = await request(server, other, zones[0], kind)
    for _ in range(MAX_HELD):
        await request(server, hub, zones[1], kind, zone=zones[1].id)
        await request(server, hub, zones[1], kind)
    assert isinstance(await relay(server, hub, first, zone=zones[0].id), Issued)
    assert isinstance(await relay(server, other, second), Issued)


@pytest.mark.req("I2", "E5")
async def test_who_asks_through_a_hub_is_listed_and_logged_with_the_hub(
    server: Server, hub: FakeChannel
) -> None:
    zone = Component()
    message = await request(server, hub, zone, Kind.ZONE_SERVER_TLS)
    assert isinstance(await relay(server, hub, message), Pending)
    rows = await ServerOperations(server).approvals()
    (row,) = [row for row in rows if row["fingerprint"] == zone.key_id.hex()]
    assert row["address"] == "127.0.0.9 (hub)"
    with logged() as lines:
        refused(await relay(server, hub, message), "nonce")
    (line,) = lines  # and not another one, as of an envelope
    assert line["event"] == "enrolment.refused"
    assert (line["remote"], line["link"]) == ("127.0.0.9 (hub)", hub.id)


async def test_a_request_that_was_bound_to_a_link_is_not_good_in_an_envelope(
    server: Server, hub: FakeChannel
) -> None:
    zone = Component()
    message = await request(server, hub, zone, Kind.ZONE_SERVER_TLS, exporter=hub.exporter)
    refused(await relay(server, hub, message), "request")


async def test_a_hub_cannot_put_another_key_into_a_request(
    server: Server, hub: FakeChannel
) -> None:
    zone, thief = Component(), Component()
    await relay(server, hub, await request(server, hub, zone, Kind.ZONE_SERVER_TLS))
    await approve(server, zone)
    message = await request(server, hub, zone, Kind.ZONE_SERVER_TLS)
    swapped = certificates.make_request(thief.identity, Kind.ZONE_SERVER_TLS)
    refused(await relay(server, hub, msgspec.structs.replace(message, csr=swapped)), "request")


# --- the envelope itself


@pytest.mark.req("E4")
@pytest.mark.parametrize(
    ("zone", "proven"),
    [(b"", True), (b"\x01" * 16, False), (b"\x01" * 15, True), (b"\x01", False), (b"\x01", True)],
)
async def test_an_id_is_proven_or_there_is_none(
    server: Server, hub: FakeChannel, zone: bytes, proven: bool
) -> None:
    inner = NonceGet(kind="zone-server-tls", spki=Component().spki)
    envelope = Relay(
        zone=zone, proven=proven, inner_type=inner.FRAME, inner=codec.encode_body(inner)
    )
    answer = refused(await answered(server.handle(hub.channel, envelope)), "envelope")
    assert answer.text == "an id is proven, or there is none"
    assert server.infrastructure.zones == {}


@pytest.mark.req("E4")
@pytest.mark.parametrize(
    ("inner_type", "inner"),
    [
        (255, b"\x80"),
        (0, b""),
        (int(LedgerGet.FRAME), b""),
        (int(LedgerGet.FRAME), b"\x80"),
        (int(LedgerGet.FRAME), b"\xff" * 40),
        (int(NonceGet.FRAME), codec.encode_body(Done())),
    ],
)
async def test_what_is_no_message_is_refused(
    server: Server, hub: FakeChannel, inner_type: int, inner: bytes
) -> None:
    envelope = Relay(zone=b"\x01" * 16, proven=True, inner_type=inner_type, inner=inner)
    assert refused(await answered(server.handle(hub.channel, envelope)), "envelope").text
    assert server.infrastructure.zones == {}


async def test_a_kind_that_is_refused_is_told_by_its_beginning(
    server: Server, hub: FakeChannel
) -> None:
    answer = await relay(server, hub, NonceGet(kind="client-tls", spki=Component().spki))
    assert refused(answer, "kind").text == "no 'client-tls' in an envelope"
    answer = await relay(server, hub, NonceGet(kind="x" * 60, spki=Component().spki))
    assert len(refused(answer, "kind").text) < 60


SAMPLES: dict[type[Message], Message] = {
    Ping: Ping(id=1),
    HeadNotice: HeadNotice(head=b"head"),
    Register: Register(full=True),
    Registered: Registered(token=b"", observed="a"),
    Done: Done(),
    Relay: Relay(zone=b"", proven=False, inner_type=1, inner=b""),
    Ack: Component().ack(bytes(32), 0, bytes(32)),
    Report: Report(),
}


@pytest.mark.req("E2", "E4")
@pytest.mark.parametrize(
    ("kind", "proven"),
    [
        (kind, proven)
        for proven in (True, False)
        for kind in SAMPLES
        if kind not in relayable(proven=proven)
    ],
)
async def test_what_is_not_relayed_is_refused(
    server: Server, hub: FakeChannel, kind: type[Message], proven: bool
) -> None:
    answer = await relay(server, hub, SAMPLES[kind], zone=b"\x01" * 16 if proven else b"")
    assert "is not relayed" in refused(answer, "envelope").text
    assert server.infrastructure.zones == {}
    assert kind in MESSAGES


async def test_an_envelope_reads_the_ledger(server: Server, hub: FakeChannel) -> None:
    slot = server.authority.slot
    answer = await relay(server, hub, LedgerGet(slot=slot, n=0, entry_id=bytes(32)))
    assert isinstance(answer, LedgerEntries)
    assert answer.entries == list(server.authority.chain.encoded)


# --- acknowledgements and reports


async def test_who_is_not_proven_is_nobody_that_was_heard_of(
    server: Server, hub: FakeChannel
) -> None:
    question = LedgerGet(slot=server.trust.slots[0], n=0, entry_id=bytes(32))
    assert isinstance(await relay(server, hub, question), LedgerEntries)
    assert server.infrastructure.zones == {}


def reported(client: Component, zone: Component) -> ClientRecord:
    """The row of a client that registers with this zone server."""
    return ClientRecord(
        id=client.id, host="", claimed="127.0.9.11", seen="127.0.9.11", port=1, protocol=1,
        version="", last_registration=START, key_not_after=None, root=None, responder=zone.id,
        token_out=None, token_shown=None, lost_at=None, first_seen=START,
    )  # fmt: skip


def last_ack(server: Server, component: Component, *credentials: Credential) -> Ack:
    last = server.authority.chain.last
    return component.ack(server.authority.slot, last.n, last.id, credentials)


@pytest.mark.req("B12")
async def test_a_zone_server_acknowledges_for_itself_alone(
    server: Server, hub: FakeChannel
) -> None:
    zone, other = await approved_zone(server), Component()
    assert await relay(server, hub, last_ack(server, zone), zone=zone.id) == Done()
    forged = msgspec.structs.replace(last_ack(server, zone), signature=b"\x30\x00")
    for message, reason in ((last_ack(server, other), "identity"), (forged, "signature")):
        with logged() as lines:
            answer = refused(await relay(server, hub, message, zone=zone.id), reason)
        (line,) = lines
        assert (line["event"], line["type"]) == ("request.refused", "Ack")
        assert (line["expected"], line["reason"]) == (
            f"zone server {zone.id.hex()} alone",
            answer.text,
        )
        assert answer.text
    kept = server.acknowledgements.of(server.authority.slot)
    assert {id: ack.role for id, ack in kept.items()} == {zone.id: "zone-server"}


@pytest.mark.req("B12")
async def test_each_acknowledgement_of_a_report_is_verified(
    server: Server, hub: FakeChannel
) -> None:
    zone = await approved_zone(server)
    one, two, three = Component(), Component(), Component()
    await server.registry.adopt([reported(client, zone) for client in (one, two, three)])
    good = [last_ack(server, one), last_ack(server, three)]
    forged = msgspec.structs.replace(last_ack(server, two), spki=Component().spki)
    nonsense = msgspec.structs.replace(last_ack(server, two), spki=b"no key")
    report = Report(acks=[good[0], forged, nonsense, good[1]])
    with logged() as lines:
        assert await relay(server, hub, report, zone=zone.id) == Done()
    kept = server.acknowledgements.of(server.authority.slot)
    assert set(kept) == {one.id, three.id}
    assert {ack.role for ack in kept.values()} == {"client"}
    said = [line for line in lines if line["event"] == "report.refused"]
    assert [line["spki"] for line in said] == [forged.spki.hex(), nonsense.spki.hex()]
    assert all(line["reason"] for line in said)


@pytest.mark.req("B12")
async def test_a_report_acknowledges_for_its_own_clients_alone(
    server: Server, hub: FakeChannel
) -> None:
    zone, another = await approved_zone(server), await approved_zone(server)
    client, stranger = Component(), Component()
    await server.registry.adopt([reported(client, another)])
    with logged() as lines:
        report = Report(acks=[last_ack(server, stranger)])
        assert await relay(server, hub, report, zone=zone.id) == Done()
        report = Report(acks=[last_ack(server, client)])
        answer = refused(await relay(server, hub, report, zone=zone.id), ELSEWHERE)
        assert answer.text == "the client still reports to another responder"
    assert not server.acknowledgements.of(server.authority.slot)
    (line,) = [line for line in lines if line["event"] == "report.refused"]
    assert line["reason"] == "no client that is known"


@pytest.mark.req("B12")
async def test_what_has_to_be_told_again_keeps_back_nothing_else_of_a_report(
    server: Server, hub: FakeChannel
) -> None:
    zone, another = await approved_zone(server), await approved_zone(server)
    elsewhere, here = Component(), Component()
    await server.registry.adopt([reported(elsewhere, another), reported(here, zone)])
    report = Report(acks=[last_ack(server, elsewhere), last_ack(server, here)])
    refused(await relay(server, hub, report, zone=zone.id), ELSEWHERE)
    assert set(server.acknowledgements.of(server.authority.slot)) == {here.id}


@pytest.mark.req("B12")
async def test_what_a_client_that_moves_has_acknowledged_is_told_again_and_not_lost(
    server: Server, hub: FakeChannel
) -> None:
    before, after, client = await approved_zone(server), await approved_zone(server), Component()
    present = ClientRow(id=client.id, host="outside", status="present")
    ack = last_ack(server, client)
    await relay(server, hub, Report(clients=[present]), zone=before.id)
    moved = Report(clients=[present], acks=[ack])
    refused(await relay(server, hub, moved, zone=after.id), ELSEWHERE)
    gone = msgspec.structs.replace(present, status="offline")
    await relay(server, hub, Report(clients=[gone]), zone=before.id)
    assert await relay(server, hub, moved, zone=after.id) == Done()
    assert set(server.acknowledgements.of(server.authority.slot)) == {client.id}
    assert server.registry.responder_of(client.id) == after.id


@pytest.mark.req("B12", "G6")
@pytest.mark.parametrize("how", ["silent", "revoked"])
async def test_the_clients_of_a_zone_server_that_is_no_more_are_anothers(
    server: Server, hub: FakeChannel, clock: FakeClock, how: str
) -> None:
    dead, alive, client = await approved_zone(server), await approved_zone(server), Component()
    report = Report(
        clients=[ClientRow(id=client.id, host="outside", status="present")],
        acks=[last_ack(server, client)],
    )
    await relay(server, hub, Report(clients=report.clients), zone=dead.id)
    clock.move_network(SILENT_AFTER - 1)
    refused(await relay(server, hub, report, zone=alive.id), ELSEWHERE)
    if how == "silent":
        clock.move_network(1)
    else:
        await decide(server, dead, State.REVOKED)
    row = server.registry.row(client.id)
    assert row is not None
    assert not row.present
    assert await relay(server, hub, report, zone=alive.id) == Done()
    row = server.registry.row(client.id)
    assert row is not None
    assert (row.present, row.record.responder) == (True, alive.id)
    assert set(server.acknowledgements.of(server.authority.slot)) == {client.id}


@pytest.mark.req("B12")
async def test_after_a_start_each_zone_server_has_time_to_be_heard_of(
    server: Server, hub: FakeChannel, clock: FakeClock
) -> None:
    """Else another could take its clients, in the second before its first report."""
    late, quick, client = await approved_zone(server), await approved_zone(server), Component()
    await server.registry.adopt([reported(client, late)])
    row = ClientRow(id=client.id, host="outside", status="present")
    await relay(server, hub, Report(clients=[row]), zone=quick.id)
    assert server.registry.responder_of(client.id) == late.id
    clock.move_network(SILENT_AFTER)
    await relay(server, hub, Report(clients=[row]), zone=quick.id)
    assert server.registry.responder_of(client.id) == quick.id


@pytest.mark.req("B12")
async def test_the_time_to_be_heard_of_is_counted_from_the_start(tmp_path: Path) -> None:
    clock = FakeClock()
    clock.move_network(10 * SILENT_AFTER)
    async with prepared(tmp_path, clock=clock) as server:
        zone = await approved_zone(server)
        clock.move_network(SILENT_AFTER - 1)
        assert server.infrastructure.counts(zone.id)
        clock.move_network(1)
        assert not server.infrastructure.counts(zone.id)


@pytest.mark.req("F3")
async def test_a_report_lists_the_clients_of_its_zone_server(
    server: Server, hub: FakeChannel, clock: FakeClock
) -> None:
    zone, client, gone = await approved_zone(server), Component(), Component()
    when = int(START.timestamp())
    rows = [
        ClientRow(
            id=client.id,
            host="outside-1",
            version="1.0",
            address="127.0.9.11",
            observed="127.0.9.12",
            port=4000,
            last_registered=when,
            key_not_after=when + 60,
            root=server.trust.newest_root,
            status="present",
        ),
        ClientRow(id=gone.id, host="outside-2", status="offline"),
    ]
    assert await relay(server, hub, Report(clients=rows, issued=7), zone=zone.id) == Done()
    row = server.registry.row(client.id)
    assert row is not None
    record = row.record
    assert (record.host, record.version, record.port) == ("outside-1", "1.0", 4000)
    assert (record.claimed, record.seen) == ("127.0.9.11", "127.0.9.12")
    assert record.last_registration == START
    assert record.key_not_after == datetime.fromtimestamp(when + 60, UTC)
    assert (record.root, record.protocol) == (server.trust.newest_root, VERSION)
    assert record.responder == zone.id
    assert (row.present, row.position) == (True, None)
    left = server.registry.row(gone.id)
    assert left is not None
    assert (left.record.last_registration, left.record.key_not_after) == (None, None)
    assert not left.present
    assert server.infrastructure.zones[zone.id].issued == 7
    # First seen is when it was first heard of, whatever is reported later.
    clock.move(timedelta(hours=1))
    await relay(server, hub, Report(clients=rows), zone=zone.id)
    again = server.registry.row(client.id)
    assert again is not None
    assert again.record.first_seen == record.first_seen


@pytest.mark.req("B12")
async def test_a_zone_server_is_present_while_it_is_heard_of(
    server: Server, hub: FakeChannel, clock: FakeClock
) -> None:
    zone = await approved_zone(server)

    def present() -> bool:
        (one,) = [one for one in server.approved_components() if one.id == zone.id]
        assert server.infrastructure.zone_present(zone.id) == one.present
        return one.present

    assert not present()
    await relay(server, hub, Report(), zone=zone.id)
    assert present()
    clock.move_network(SILENT_AFTER - 1)
    assert present()
    clock.move_network(1)
    assert not present()
    await relay(server, hub, Report(), zone=zone.id)
    assert present()


async def test_what_was_counted_is_kept_between_reports(server: Server, hub: FakeChannel) -> None:
    zone = await approved_zone(server)
    await relay(server, hub, Report(issued=9), zone=zone.id)
    await relay(server, hub, last_ack(server, zone), zone=zone.id)
    assert server.infrastructure.zones[zone.id].issued == 9
