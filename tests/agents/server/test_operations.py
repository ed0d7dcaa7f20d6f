"""What an administrator may ask: each operation, its refusals, and what is left afterwards."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agents.responder.records import AckRecord, Credential
from agents.runtime.errors import StateError
from agents.runtime.network import answered
from agents.server.app import Server
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from agents.server.store import audit
from pki import certificates, heads
from pki.certificates import Kind
from protocol.messages import Issued, Register, Registered
from tests.support.clock import START, FakeClock
from tests.support.components import Component, FakeChannel, peer_of
from tests.support.logs import logged
from tests.support.servers import FQDN, enrolled, prepared

ROOT0, ROOT1 = f"{FQDN} Root 0", f"{FQDN} Root 1"
ME = "unix:alice"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def server(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Server]:
    async with prepared(tmp_path, clock=clock) as made:
        yield made


@pytest.fixture
def operations(server: Server) -> ServerOperations:
    return ServerOperations(server)


class Machine:
    """A client that enrols, registers and acknowledges."""

    def __init__(self, server: Server, address: str) -> None:
        self.server, self.address, self.component = server, address, Component()
        self.link = FakeChannel()
        self.token = b""

    async def renew(self) -> None:
        answer = await enrolled(self.server, self.component, Kind.CLIENT_TLS)
        assert isinstance(answer, Issued)
        self.link = FakeChannel(peer_of(answer.chain), remote=(self.address, 1))

    async def register(self) -> None:
        message = Register(
            host=f"host-{self.address}",
            version="1.0",
            port=4000,
            address=self.address,
            full=True,
            token=self.token,
        )
        answer = await answered(self.server.handle(self.link.channel, message))
        assert isinstance(answer, Registered), answer
        self.token = answer.token

    async def acknowledge(self) -> None:
        assert self.link.peer is not None
        last = self.server.authority.chain.last
        await self.server.acknowledgements.take(
            AckRecord(
                component=self.component.id,
                slot=self.server.authority.slot,
                n=last.n,
                entry_id=last.id,
                spki=self.component.spki,
                signature=b"",
                role="client",
                credentials=(
                    Credential("client-tls", self.link.peer.leaf.key_id, self.link.peer.root, 0),
                ),
                at=self.server.clock.now(),
            ),
            self.server.trust,
        )

    async def follow(self) -> None:
        await self.renew()
        await self.register()
        await self.acknowledge()


async def machines(server: Server, *addresses: str) -> list[Machine]:
    made = [Machine(server, address) for address in addresses]
    for machine in made:
        await machine.follow()
    return made


async def two_roots(operations: ServerOperations, clock: FakeClock) -> None:
    clock.move(timedelta(days=200))
    await operations.root_new(ME, confirmed=False)


def code(refusal: "pytest.ExceptionInfo[OperationError]") -> str:
    return refusal.value.code


# --- new root


@pytest.mark.req("B16")
@pytest.mark.parametrize(("days", "asks"), [(0, True), (181, True), (182, False), (400, False)])
async def test_another_root_within_half_a_year_has_to_be_confirmed(
    operations: ServerOperations, server: Server, clock: FakeClock, days: int, asks: bool
) -> None:
    clock.move(timedelta(days=days))
    before = server.authority.chain
    if asks:
        with pytest.raises(OperationError, match="younger than 182 days") as refusal:
            await operations.root_new(ME, confirmed=False)
        assert code(refusal) == "confirm"
        assert server.authority.chain == before
        assert await operations.root_log() == []
    row = await operations.root_new(ME, confirmed=asks)
    assert row["root"]["name"] == ROOT1
    assert len(server.authority.chain.roots) == 2


@pytest.mark.req("B16")
async def test_both_limits_can_be_set(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    await operations.setting_set(ME, "root_rotation_interval_days", "10")
    await operations.setting_set(ME, "root_age_warning_days", "20")
    clock.move(timedelta(days=10))
    await operations.root_new(ME, confirmed=False)
    clock.move(timedelta(days=20))
    assert (await operations.status())["root_age"]["warning"] is None
    clock.move(timedelta(days=1))
    assert "21 days" in (await operations.status())["root_age"]["warning"]


@pytest.mark.req("B16")
async def test_an_old_root_is_warned_of(operations: ServerOperations, clock: FakeClock) -> None:
    clock.move(timedelta(days=365))
    assert (await operations.status())["root_age"] == {"days": 365, "warning": None}
    clock.move(timedelta(days=1))
    age = (await operations.status())["root_age"]
    assert age["days"] == 366
    assert "366 days" in age["warning"]


@pytest.mark.req("A2")
async def test_roots_are_listed_by_name_fingerprint_and_date(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    await two_roots(operations, clock)
    old, new = await operations.roots()
    assert (old["name"], old["current"], old["revoked"]) == (ROOT0, False, False)
    assert (new["name"], new["current"], new["revoked"]) == (ROOT1, True, False)
    assert old["created"] == START.isoformat()
    assert new["created"] == clock.now().isoformat()
    assert new["fingerprint"] == server.authority.chain.current_root.key_id.hex()
    assert (new["revocable"], old["revocable"]) == (False, False)
    clock.move(timedelta(days=7))
    old, new = await operations.roots()
    assert (old["revocable"], new["revocable"]) == (True, False)
    assert "create a new one" in new["why"]


# --- revoke


@pytest.mark.req("B2")
async def test_a_revocation_without_a_newer_root_is_refused_and_says_why(
    operations: ServerOperations, server: Server
) -> None:
    before = server.trust.state
    with pytest.raises(OperationError, match="create a new one first") as refusal:
        await operations.root_revoke(ME, ROOT0, key_in_doubt=True, reason="x", confirmed=True)
    assert code(refusal) == "refused"
    assert server.trust.state == before


@pytest.mark.req("B2", "B3", "B5")
async def test_in_the_first_week_only_for_a_key_in_doubt(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    await two_roots(operations, clock)
    with pytest.raises(OperationError, match="7 days") as refusal:
        await operations.root_revoke(ME, ROOT0, key_in_doubt=False, reason="x", confirmed=True)
    assert code(refusal) == "refused"
    assert "doubt" in refusal.value.hint
    assert server.authority.chain.revoked == frozenset()
    row = await operations.root_revoke(ME, ROOT0, key_in_doubt=True, reason="x", confirmed=False)
    assert row["revoked"] == [ROOT0]
    old, _ = await operations.roots()
    assert (old["revoked"], old["private_key_held"]) == (True, False)
    with pytest.raises(OperationError, match="already"):
        await operations.root_revoke(ME, ROOT0, key_in_doubt=True, reason="x", confirmed=True)


@pytest.mark.req("B12")
@pytest.mark.parametrize("reason", ["", "   ", "\t"])
async def test_a_revocation_needs_a_reason(
    operations: ServerOperations, server: Server, clock: FakeClock, reason: str
) -> None:
    await two_roots(operations, clock)
    clock.move(timedelta(days=8))
    with pytest.raises(OperationError, match="reason") as refusal:
        await operations.root_revoke(ME, ROOT0, key_in_doubt=False, reason=reason, confirmed=True)
    assert code(refusal) == "reason"
    assert server.authority.chain.revoked == frozenset()


@pytest.mark.req("B2", "B12")
async def test_who_would_be_cut_off_is_named_and_has_to_be_confirmed(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    moved, behind, _ = await machines(server, "127.0.1.11", "127.0.1.12", "127.0.1.13")
    await two_roots(operations, clock)
    clock.move(timedelta(days=8))
    await moved.follow()
    with pytest.raises(OperationError, match="2 have not moved yet") as refusal:
        await operations.root_revoke(ME, ROOT0, key_in_doubt=False, reason="x", confirmed=False)
    assert code(refusal) == "confirm"
    assert "host-127.0.1.12, host-127.0.1.13" in str(refusal.value)
    assert "host-127.0.1.11" not in str(refusal.value)
    assert server.authority.chain.revoked == frozenset()
    row = await operations.root_revoke(ME, ROOT0, key_in_doubt=False, reason="x", confirmed=True)
    assert [one["host"] for one in row["coverage"]["behind"]] == [
        f"host-{behind.address}",
        "host-127.0.1.13",
    ]


@pytest.mark.req("B12")
async def test_a_yes_is_for_those_who_were_shown(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    """Who has fallen behind between the look and the deed is named first."""
    one, two = await machines(server, "127.0.1.11", "127.0.1.12")
    await two_roots(operations, clock)
    clock.move(timedelta(days=8))
    await one.follow()
    seen = [bytes.fromhex(row["id"]) for row in (await operations.coverage(None))["behind"]]
    assert seen == [two.component.id]
    late = Machine(server, "127.0.1.13")
    await late.renew()
    await late.register()
    revoke = partial(operations.root_revoke, ME, ROOT0, key_in_doubt=False, reason="x")
    with pytest.raises(OperationError, match=r"1 have fallen behind since: host-127.0.1.13") as no:
        await revoke(confirmed=True, shown=seen)
    assert code(no) == "confirm"
    with pytest.raises(OperationError, match="2 have not moved yet"):
        await revoke(confirmed=False, shown=[*seen, late.component.id])
    assert server.authority.chain.revoked == frozenset()
    # Somebody who has moved meanwhile is no reason to ask again.
    await two.follow()
    row = await revoke(confirmed=True, shown=[*seen, late.component.id])
    assert [each["host"] for each in row["coverage"]["behind"]] == ["host-127.0.1.13"]


@pytest.mark.req("J4")
async def test_the_log_says_who_made_and_revoked_which_root(
    operations: ServerOperations, clock: FakeClock
) -> None:
    with logged() as lines:
        await two_roots(operations, clock)
        revoke = partial(operations.root_revoke, ME, ROOT0, key_in_doubt=True, confirmed=True)
        with pytest.raises(OperationError):
            await revoke(reason=" ")
        await revoke(reason="a copy was seen")
    old, new = await operations.roots()
    (made,) = [line for line in lines if line["event"] == "root.created"]
    (gone,) = [line for line in lines if line["event"] == "root.revoked"]
    assert (made["name"], made["fingerprint"], made["actor"]) == (ROOT1, new["fingerprint"], ME)
    assert (gone["name"], gone["fingerprint"], gone["actor"]) == (ROOT0, old["fingerprint"], ME)
    assert gone["reason"] == "a copy was seen"
    assert made["trace"] != gone["trace"]


async def test_a_root_that_there_is_not_is_not_found(operations: ServerOperations) -> None:
    for call in (
        operations.root_revoke(ME, "x", key_in_doubt=True, reason="x", confirmed=True),
        operations.coverage("x"),
    ):
        with pytest.raises(OperationError, match="no root") as refusal:
            await call
        assert code(refusal) == "not-found"


# --- coverage


@pytest.mark.req("B12")
async def test_coverage_is_by_name_and_from_acknowledgements(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    one, two, three, four = await machines(
        server, "127.0.1.11", "127.0.1.12", "127.0.1.13", "127.0.1.14"
    )
    assert (await operations.coverage(None))["counts"] == {"client": {"moved": 4}}
    await two_roots(operations, clock)
    assert (await operations.coverage(None))["counts"] == {"client": {"moving": 4}}
    await one.follow()
    await two.renew()  # it has a certificate under the new root, and has acknowledged nothing
    await three.acknowledge()  # and this one the entry, with a certificate under the old root
    clock.move_network(1000)
    for present in (one, two, three):
        await present.register()
    coverage = await operations.coverage(ROOT1)
    states = {row["host"]: row["state"] for row in coverage["rows"]}
    assert states == {
        "host-127.0.1.11": "moved",
        "host-127.0.1.12": "moving",
        "host-127.0.1.13": "moving",
        "host-127.0.1.14": "offline",
    }
    assert coverage["counts"] == {"client": {"moved": 1, "moving": 2, "offline": 1}}
    assert {row["host"] for row in coverage["behind"]} == set(states) - {"host-127.0.1.11"}
    whys = {row["host"]: row["why"] for row in coverage["rows"]}
    assert whys[f"host-{four.address}"].startswith("offline, will follow")
    behind = await operations.rotation(behind=True)
    assert behind["rows"] == coverage["behind"]
    assert len((await operations.rotation(behind=False))["rows"]) == 4
    assert (await operations.coverage(ROOT0))["counts"] == {"client": {"moved": 4}}
    assert (await operations.status())["clients"] == {"total": 4, "present": 3, "behind": 3}


@pytest.mark.req("B12")
async def test_an_approved_component_is_expected_to_follow(
    operations: ServerOperations, server: Server
) -> None:
    hub = Component()
    await enrolled(server, hub, Kind.HUB_TLS, host="hub-1")
    assert (await operations.coverage(None))["rows"] == []
    await operations.approvals_decide(ME, hub.key_id.hex(), "approve", "")
    (row,) = (await operations.coverage(None))["rows"]
    assert (row["role"], row["host"], row["state"]) == ("hub", "hub-1", "offline")


@pytest.mark.req("B8")
async def test_what_was_raised_stands_beside_the_kind_that_it_is_about(
    operations: ServerOperations,
) -> None:
    await operations.setting_set(ME, "pki_zoneserver_tls_key_renewal_window_hours", "48")
    row = await operations.setting_set(ME, "pki_zoneserver_tls_key_duration_days", "1")
    assert len(row["raises"]) == 1
    row = await operations.setting_set(ME, "pki_client_tls_key_duration_days", "30")
    assert len(row["raises"]) == 1
    kinds = {one["kind"]: one for one in (await operations.rotation(behind=False))["settings"]}
    raised = {kind for kind, one in kinds.items() if one["raised"]}
    assert raised == {"zone-server-tls", "client-ca"}
    assert kinds["zone-server-tls"]["validity"] == 49 * 3600
    assert kinds["client-ca"]["window"] == 30 * 86400


# --- the log


async def test_the_log_says_who_did_what_and_whether_it_was_done(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    standby = server.standby.load()
    server.standby.save({})
    with pytest.raises(StateError):
        await operations.root_new(ME, confirmed=True)
    server.standby.save(standby)
    await operations.root_new("unix:bob", confirmed=True)
    await operations.root_revoke(ME, ROOT0, key_in_doubt=True, reason="stolen", confirmed=True)
    rows = await operations.root_log()
    assert [(r["action"], r["actor"], r["subject"], r["result"]) for r in reversed(rows)] == [
        ("root.new", ME, ROOT1, "not completed"),
        ("root.new", "unix:bob", ROOT1, "done"),
        ("root.revoke", ME, ROOT0, "done"),
    ]
    assert rows[0]["reason"] == "stolen"
    assert rows[0]["at"] == clock.now().isoformat()
    # Each entry names its line by a hash that needs the salt.
    entries = server.authority.chain.entries[1:]
    for entry in entries:
        record = await server.store.read(lambda c, e=entry: audit.find(c, e.parse().audit))  # type: ignore[misc]  # mypy cannot infer a default
        assert record is not None
        assert record.is_intact
        assert record.salt is not None


# --- approvals


async def pending(server: Server, *, host: str = "hub-1") -> Component:
    component = Component()
    await enrolled(server, component, Kind.HUB_TLS, host=host)
    return component


@pytest.mark.req("I2")
async def test_an_approval_goes_by_fingerprint_or_the_beginning_of_one(
    operations: ServerOperations, server: Server
) -> None:
    one, two, other = [await pending(server) for _ in range(3)]
    text = one.key_id.hex()
    row = await operations.approvals_decide(ME, text[:16].upper(), "approve", "compared")
    assert (row["fingerprint"], row["state"], row["decided_by"]) == (text, "approved", ME)
    assert (row["reason"], row["host"], row["role"]) == ("compared", "hub-1", "hub")
    await operations.approvals_decide(ME, two.key_id.hex(), "deny", "")
    states = {row["fingerprint"]: row["state"] for row in await operations.approvals()}
    assert states == {
        text: "approved",
        two.key_id.hex(): "denied",
        other.key_id.hex(): "pending",
    }
    log = await operations.approvals_log()
    assert [row["state"] for row in log] == ["pending"] * 3 + ["approved", "denied"]


async def test_an_approval_of_which_the_commit_failed_and_is_there_all_the_same_holds(
    operations: ServerOperations, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await pending(server)
    write = server.store.write

    async def failing(work: Callable[[Any], Any]) -> None:
        await write(work)
        raise StateError("cannot commit")

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "write", failing)
        with pytest.raises(OperationError, match="cannot commit"):
            await operations.approvals_decide(ME, hub.key_id.hex(), "approve", "")
    assert [row["state"] for row in await operations.approvals()] == ["approved"]
    assert [one.id for one in server.approved_components()] == [hub.id]


@pytest.mark.req("I2")
@pytest.mark.parametrize(
    ("fingerprint", "expected"),
    [
        ("", "bad-input"),
        ("0123456789abcde", "bad-input"),
        ("g" * 16, "bad-input"),
        ("%" * 16, "bad-input"),
        ("_" * 64, "bad-input"),
        ("0" * 16, "not-found"),
        ("0" * 65, "not-found"),
    ],
)
async def test_a_fingerprint_that_names_nobody_or_many_decides_nothing(
    operations: ServerOperations, server: Server, fingerprint: str, expected: str
) -> None:
    await pending(server)
    with pytest.raises(OperationError) as refusal:
        await operations.approvals_decide(ME, fingerprint, "approve", "")
    assert code(refusal) == expected
    assert [row["state"] for row in await operations.approvals()] == ["pending"]


async def test_a_decision_that_is_none_is_refused(
    operations: ServerOperations, server: Server
) -> None:
    component = await pending(server)
    with pytest.raises(OperationError) as refusal:
        await operations.approvals_decide(ME, component.key_id.hex(), "forget", "")
    assert code(refusal) == "bad-input"
    with pytest.raises(OperationError, match="cannot become revoked") as refusal:
        await operations.approvals_decide(ME, component.key_id.hex(), "revoke", "")
    assert code(refusal) == "refused"


@pytest.mark.req("I2")
async def test_a_revoked_components_keys_are_denied_by_head(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    hub, other = await pending(server), await pending(server)
    issued = []
    for component in (hub, other):
        await operations.approvals_decide(ME, component.key_id.hex(), "approve", "")
        for _ in range(2):
            answer = await enrolled(server, component, Kind.HUB_TLS)
            assert isinstance(answer, Issued)
            issued.append(certificates.read(answer.chain[0]).key_id)
    revision = server.trust.revision
    await operations.approvals_decide(ME, hub.key_id.hex(), "revoke", "retired")
    assert server.trust.denied == frozenset(issued[:2])
    assert server.trust.revision == revision + 1
    head = heads.parse_head(server.trust.latest_head() or b"").head
    assert set(head.denied) == set(issued[:2])
    rows = (await operations.coverage(None))["rows"]
    assert [row["id"] for row in rows] == [other.id.hex()]
    # A new root and the hourly head go on denying them.
    await operations.root_new(ME, confirmed=True)
    assert server.trust.denied == frozenset(issued[:2])
    # What was let in again is no longer denied; nor what has expired.
    await operations.approvals_decide(ME, hub.key_id.hex(), "approve", "")
    assert server.trust.denied == frozenset()
    await operations.approvals_decide(ME, hub.key_id.hex(), "revoke", "")
    assert server.trust.denied == frozenset(issued[:2])
    clock.move(timedelta(days=61))
    await server.approvals_changed()
    assert server.trust.denied == frozenset()


@pytest.mark.req("I2")
async def test_a_denial_is_in_force_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    async with prepared(tmp_path, clock=clock) as server:
        operations = ServerOperations(server)
        hub = await pending(server)
        await operations.approvals_decide(ME, hub.key_id.hex(), "approve", "")
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide(ME, hub.key_id.hex(), "revoke", "")
        denied = server.trust.denied
        assert len(denied) == 1
    async with prepared(tmp_path, clock=clock) as server:
        assert server.trust.denied == denied


# --- clients


@pytest.mark.req("F3")
async def test_a_client_is_listed_with_everything_that_is_known(
    operations: ServerOperations, server: Server
) -> None:
    one, two = await machines(server, "127.0.1.11", "127.0.1.12")
    first, second = await operations.clients()
    assert one.link.peer is not None
    assert first == {
        "id": one.component.id.hex(),
        "host": "host-127.0.1.11",
        "address": "127.0.1.11",
        "seen": "127.0.1.11",
        "port": 4000,
        "protocol": 1,
        "version": "1.0",
        "last_registration": START.isoformat(),
        "key_not_after": one.link.peer.leaf.not_after.isoformat(),
        "root": server.trust.newest_root.hex(),
        "valid_key": True,
        "responder": server.member.id.hex(),
        "responder_role": "server",
        "chain": "127.0.1.0/24#0",
        "index": 0,
        "leader": True,
        "forward": two.component.id.hex(),
        "backward": None,
        "status": "present",
    }
    assert (second["index"], second["backward"]) == (1, one.component.id.hex())


@pytest.mark.req("F4")
async def test_a_key_under_a_revoked_root_or_expired_is_not_valid(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    late, prompt = await machines(server, "127.0.1.11", "127.0.1.12")
    await operations.root_new(ME, confirmed=True)
    await prompt.follow()
    assert [row["valid_key"] for row in await operations.clients()] == [True, True]
    await operations.root_revoke(ME, ROOT0, key_in_doubt=True, reason="x", confirmed=True)
    assert [row["valid_key"] for row in await operations.clients()] == [False, True]
    await late.follow()
    assert [row["valid_key"] for row in await operations.clients()] == [True, True]
    clock.move(timedelta(days=7))
    assert [row["valid_key"] for row in await operations.clients()] == [False, False]


@pytest.mark.req("F3")
async def test_a_zone_servers_client_is_listed_as_its_own(
    operations: ServerOperations, server: Server
) -> None:
    (one,) = await machines(server, "127.0.1.11")
    row = server.registry.row(one.component.id)
    assert row is not None
    await server.registry.adopt(
        [replace(row.record, id=b"\x05" * 16, host="outside", responder=b"\x06" * 16)]
    )
    _, outside = await operations.clients()
    assert (outside["responder_role"], outside["responder"]) == ("zone-server", "06" * 16)
    assert (outside["chain"], outside["leader"]) == (None, None)


# --- status


@pytest.mark.req("A4")
async def test_status_shows_no_private_key_and_one_fingerprint_a_key(
    operations: ServerOperations, server: Server
) -> None:
    await enrolled(server, Component(), Kind.CLIENT_TLS)
    status = await operations.status()
    assert status["can_sign"]
    assert [root["name"] for root in status["roots"]] == [ROOT0]
    assert {row["kind"] for row in status["keys"]} == {
        "server-tls",
        "message-signing",
        "client-ca",
    }
    assert status["signatures"] == {"root": 3, "client_ca": 1, "zone_client_ca": 0}
    assert status["ledger"]["n"] == 0
    shown = repr([status, await operations.roots(), await operations.settings()])
    for held in server.keyring.credentials:
        secret = held.key.private_numbers().private_value
        assert str(secret) not in shown
        assert f"{secret:064x}" not in shown
        assert held.leaf.fingerprint in shown


@pytest.mark.req("A6")
async def test_the_signatures_of_a_zone_servers_ca_are_counted_apart(
    operations: ServerOperations, server: Server
) -> None:
    before = (await operations.status())["signatures"]
    await machines(server, "127.0.1.11", "127.0.1.12")
    after: dict[str, Any] = (await operations.status())["signatures"]
    assert after["root"] == before["root"]
    assert after["client_ca"] == before["client_ca"] + 2
