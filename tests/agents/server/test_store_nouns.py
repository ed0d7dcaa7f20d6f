import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, text

from agents.responder.records import (
    AckRecord,
    AckStore,
    ClientRecord,
    Credential,
    IssuanceRecord,
    IssuedRecord,
    RegistryStore,
)
from agents.runtime.errors import StateError, UnavailableError
from agents.server.store import Store, approvals, audit, bundles, issued, settings
from agents.server.store.acks import AckTable
from agents.server.store.approvals import DecisionError, OtherRoleError, State
from agents.server.store.clients import ClientTable
from agents.server.store.issued import IssuedTable
from agents.server.store.settings import SettingType, ValueType

NOW = datetime(2030, 1, 1, 12, 0, 5, tzinfo=UTC)
SALT = b"salt" * 4
HUB = b"\x0b" * 32
ROOT, CLIENT_CA = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "server.db")
    yield opened
    opened.close()


def act(**changes: object) -> audit.Act:
    usual = audit.Act(
        at=NOW,
        actor="alice",
        action="root.revoke",
        subject="a.example Root 0",
        reason="stolen disk",
        details={"behind": ["client-07"], "key": {"in_doubt": True}},
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # each test names real fields


# --- Activity log


async def test_the_activity_log_is_read_newest_first_and_in_pages(store: Store) -> None:
    for number in range(5):
        await store.write(partial(audit.append, act=act(subject=str(number))))
    lines = await store.read(partial(audit.latest, limit=2))
    assert [line.act.subject for line in lines] == ["4", "3"]
    lines = await store.read(partial(audit.latest, before=lines[-1].seq))
    assert [line.act.subject for line in lines] == ["2", "1", "0"]


async def test_the_activity_log_is_read_by_action(store: Store) -> None:
    for action in ("root.new", "rootless.new", "root.revoke", "setting.set"):
        await store.write(partial(audit.append, act=act(action=action)))
    lines = await store.read(partial(audit.latest, action="root."))
    assert [line.act.action for line in lines] == ["root.revoke", "root.new"]


async def test_a_line_comes_back_as_it_was_written(store: Store) -> None:
    await store.write(partial(audit.append, act=act()))
    (line,) = await store.read(audit.latest)
    assert line.act == act()
    assert (line.salt, line.hash, line.is_intact) == (None, None, True)


async def test_a_ledger_entry_finds_its_line(store: Store) -> None:
    await store.write(partial(audit.append, act=act(), salt=SALT))
    line = await store.read(partial(audit.find, audit_hash=audit.record_hash(act(), SALT)))
    assert line is not None
    assert line.act == act()
    assert line.is_intact
    assert await store.read(partial(audit.find, audit_hash=b"\0" * 32)) is None


async def test_a_line_altered_in_the_database_is_not_intact(store: Store) -> None:
    await store.write(partial(audit.append, act=act(), salt=SALT))
    forge = text("UPDATE activity SET reason = 'routine'")
    await store.write(lambda connection: connection.execute(forge).rowcount)
    (line,) = await store.read(audit.latest)
    assert not line.is_intact


def test_the_hash_is_of_the_salt_and_one_text() -> None:
    text = json.dumps(
        [
            "anchorline-activity-v1",
            int(NOW.timestamp()),
            "alice",
            "root.revoke",
            "a.example Root 0",
            "stolen disk",
            {"behind": ["client-07"], "key": {"in_doubt": True}},
        ],
        separators=(",", ":"),
    )
    assert audit.record_hash(act(), SALT) == hashlib.sha256(SALT + text.encode()).digest()


@pytest.mark.parametrize(
    "changed",
    [
        act(at=NOW + timedelta(seconds=1)),
        act(actor="bob"),
        act(action="root.new"),
        act(subject="a.example Root 1"),
        act(reason=""),
        act(details={}),
    ],
    ids=["at", "actor", "action", "subject", "reason", "details"],
)
def test_every_part_of_an_act_is_hashed(changed: audit.Act) -> None:
    assert audit.record_hash(changed, SALT) != audit.record_hash(act(), SALT)


def test_the_same_details_in_another_order_are_the_same_act() -> None:
    one, two = act(details={"a": 1, "b": 2}), act(details={"b": 2, "a": 1})
    assert audit.record_hash(one, SALT) == audit.record_hash(two, SALT)


def test_a_short_salt_is_refused() -> None:
    with pytest.raises(ValueError, match="salt of 15 bytes"):
        audit.record_hash(act(), SALT[:15])


@pytest.mark.parametrize("details", [{"rate": 0.5}, {"a": [b"raw"]}, {"a": {1: "x"}}])
def test_details_that_have_no_one_text_are_refused(details: object) -> None:
    with pytest.raises(TypeError, match="detail"):
        act(details=details)


def test_a_naive_date_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        act(at=NOW.replace(tzinfo=None))


# --- Settings

put = partial(
    settings.put,
    name="server_tls_key_validity",
    value="60",
    setting_type=SettingType.SERVER,
    value_type=ValueType.NUMERIC,
    actor="alice",
    at=NOW,
)


async def test_a_setting_says_who_changed_what_and_when(store: Store) -> None:
    await store.write(put)
    later = NOW + timedelta(hours=1)
    await store.write(partial(put, value="30", actor="bob", at=later, reason="audit finding"))
    found = (await store.read(settings.every))["server_tls_key_validity"]
    assert (found.value, found.changed_by, found.changed_at) == ("30", "bob", later)
    changes = [line.act for line in await store.read(audit.latest)]
    assert [(a.actor, a.details, a.reason) for a in changes] == [
        ("bob", {"from": "60", "to": "30"}, "audit finding"),
        ("alice", {"from": None, "to": "60"}, ""),
    ]


async def test_each_change_has_the_next_revision_and_a_repeat_is_none(store: Store) -> None:
    assert await store.read(settings.revision) == 0
    assert (await store.write(put)).revision == 1
    assert (await store.write(partial(put, name="other"))).revision == 2
    assert (await store.write(partial(put, actor="bob"))).revision == 1
    assert await store.read(settings.revision) == 2
    assert (await store.write(partial(put, value="61"))).revision == 3
    assert len(await store.read(audit.latest)) == 3


async def test_a_protected_value_is_shown_nowhere(store: Store) -> None:
    secret = partial(put, name="secret", value_type=ValueType.PROTECTED)
    await store.write(partial(secret, value="hunter2"))
    kept = await store.write(partial(secret, value="hunter3"))
    assert (kept.value, kept.shown) == ("hunter3", "(protected)")
    assert "hunter" not in repr(kept)
    assert "hunter" not in repr(await store.read(audit.latest))


@pytest.mark.parametrize("value", ["", "4h", "1.5", "--1", "\N{SUPERSCRIPT TWO}"])
async def test_a_numeric_setting_takes_whole_numbers_only(store: Store, value: str) -> None:
    with pytest.raises(ValueError, match="numeric"):
        await store.write(partial(put, value=value))
    assert await store.read(settings.every) == {}
    assert await store.read(audit.latest) == []


# --- Approvals

ask = partial(approvals.ask, identity=HUB, role="hub", host="hub1", address="192.0.2.7:9", at=NOW)
decide = partial(approvals.decide, identity=HUB, actor="alice", at=NOW, reason="compared by phone")


@pytest.mark.req("I2")
async def test_a_request_waits_until_an_administrator_decides(store: Store) -> None:
    asked = await store.write(ask)
    assert (asked.state, asked.decided_by) == (State.PENDING, None)
    decided = await store.write(partial(decide, state=State.APPROVED))
    assert (decided.state, decided.decided_by, decided.decided_at) == (
        State.APPROVED,
        "alice",
        NOW,
    )
    assert await store.read(partial(approvals.every, state=State.PENDING)) == []
    assert await store.read(approvals.every) == [decided]


@pytest.mark.req("I2")
async def test_the_history_keeps_every_decision(store: Store) -> None:
    await store.write(ask)
    for state in (State.DENIED, State.APPROVED, State.REVOKED):
        await store.write(partial(decide, state=state, reason=f"because {state}"))
    lines = await store.read(partial(approvals.history, identity=HUB))
    assert [(line.state, line.actor, line.reason) for line in lines] == [
        (State.PENDING, "", ""),
        (State.DENIED, "alice", "because denied"),
        (State.APPROVED, "alice", "because approved"),
        (State.REVOKED, "alice", "because revoked"),
    ]
    acts = [line.act for line in await store.read(audit.latest)]
    assert [a.action for a in acts] == [
        "approval.revoked",
        "approval.approved",
        "approval.denied",
    ]
    assert {a.subject for a in acts} == {HUB.hex()}


@pytest.mark.req("I2")
@pytest.mark.parametrize("state", [State.DENIED, State.REVOKED])
async def test_who_was_turned_away_cannot_ask_himself_back_in(store: Store, state: State) -> None:
    await store.write(ask)
    if state is State.REVOKED:
        await store.write(partial(decide, state=State.APPROVED))
    await store.write(partial(decide, state=state))
    again = await store.write(partial(ask, host="hub2", at=NOW + timedelta(days=1)))
    assert (again.state, again.host, again.last_seen) == (state, "hub2", NOW + timedelta(days=1))
    assert again.first_seen == NOW


async def test_an_approved_identity_cannot_take_another_role(store: Store) -> None:
    await store.write(ask)
    await store.write(partial(decide, state=State.APPROVED))
    with pytest.raises(OtherRoleError, match="known as hub, and asks to be zone-server"):
        await store.write(partial(ask, role="zone-server"))
    assert [one.role for one in await store.read(approvals.every)] == ["hub"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ([], State.REVOKED),
        ([], State.PENDING),
        ([State.APPROVED], State.APPROVED),
        ([State.APPROVED], State.DENIED),
        ([State.DENIED], State.REVOKED),
        ([State.APPROVED, State.REVOKED], State.DENIED),
    ],
)
async def test_a_decision_that_the_state_does_not_allow_changes_nothing(
    store: Store, path: list[State], asked: State
) -> None:
    await store.write(ask)
    for state in path:
        await store.write(partial(decide, state=state))
    before = await store.read(approvals.history)
    with pytest.raises(DecisionError, match="cannot become"):
        await store.write(partial(decide, state=asked))
    assert await store.read(approvals.history) == before
    assert len(await store.read(audit.latest)) == len(path)


async def test_nobody_is_approved_who_did_not_ask(store: Store) -> None:
    with pytest.raises(DecisionError, match="no request"):
        await store.write(partial(decide, state=State.APPROVED))
    assert await store.read(approvals.every) == []


async def test_strangers_cannot_fill_the_list(store: Store) -> None:
    few = partial(ask, max_pending=3)
    for number in range(3):
        await store.write(partial(few, identity=bytes([number]) * 32))
    with pytest.raises(UnavailableError, match="wait for a decision") as caught:
        await store.write(few)
    assert caught.value.retry_after == approvals.RETRY_AFTER
    for _ in range(5):
        await store.write(partial(few, identity=b"\x01" * 32))
    assert len(await store.read(approvals.history)) == 3
    await store.write(partial(decide, identity=b"\x01" * 32, state=State.DENIED))
    await store.write(few)


async def test_one_address_cannot_keep_others_off_the_list(store: Store) -> None:
    for number in range(approvals.MAX_PENDING_ADDRESS):
        await store.write(partial(ask, identity=bytes([number]) * 32))
    for number in range(100, 120):
        with pytest.raises(UnavailableError, match=r"10 requests from 192\.0\.2\.7:9 wait"):
            await store.write(partial(ask, identity=bytes([number]) * 32))
    await store.write(partial(ask, identity=b"\xff" * 32, address="10.0.0.8"))
    # Whoever is on the list asks on, and one that is decided on makes room.
    await store.write(partial(ask, identity=b"\x01" * 32))
    await store.write(partial(decide, identity=b"\x01" * 32, state=State.APPROVED))
    await store.write(partial(ask, identity=b"\xfe" * 32))
    assert len(await store.read(approvals.every)) == 12


async def test_what_nobody_repeats_for_a_day_makes_room(store: Store) -> None:
    """And nothing else does: not a request that is repeated, nor one that was decided on."""
    few = partial(ask, max_pending=3, max_address=3)
    decided, repeated, stale, fresh, new = (bytes([n]) * 32 for n in range(5))
    await store.write(partial(few, identity=decided))
    await store.write(partial(decide, identity=decided, state=State.DENIED))
    for identity in (repeated, stale):
        await store.write(partial(few, identity=identity))
    day = NOW + approvals.FORGOTTEN_AFTER
    await store.write(partial(few, identity=repeated, at=day))
    await store.write(partial(few, identity=fresh, at=day))
    with pytest.raises(UnavailableError, match="3 requests wait"):
        await store.write(partial(few, identity=new, at=day))
    await store.write(partial(few, identity=new, at=day + timedelta(seconds=1)))
    kept = {decided, repeated, fresh, new}
    assert {one.identity for one in await store.read(approvals.every)} == kept
    assert {one.identity for one in await store.read(approvals.history)} == kept


async def test_an_identity_that_is_no_key_id_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await store.write(partial(ask, identity=b"x" * 16))


# --- Issues


def issue(serial: int, issuer: bytes = CLIENT_CA, **changes: object) -> IssuedRecord:
    usual = IssuedRecord(
        serial=serial,
        kind="client-tls",
        holder=b"h" * 16,
        key_id=serial.to_bytes(32, "big"),
        issuer=issuer,
        root=ROOT,
        not_before=NOW,
        not_after=NOW + timedelta(days=7),
        at=NOW,
    )
    return msgspec.structs.replace(usual, **changes)


async def test_issues_are_counted_by_the_kind_of_key_that_signed(store: Store) -> None:
    table = IssuedTable(store)
    record: IssuanceRecord = table
    assert await table.count_by_issuer() == {"root": 0, "client-ca": 0}
    await record.record(issue(1, ROOT))
    for serial in range(60):
        await record.record(issue(serial))
    assert await table.count_by_issuer() == {"root": 1, "client-ca": 60}
    await record.record(issue(1, b"\x03" * 32))
    assert await table.count_by_issuer() == {"root": 1, "client-ca": 61}


async def test_an_issue_comes_back_as_it_was_recorded(store: Store) -> None:
    longest = issue((1 << 160) - 1)
    await IssuedTable(store).record(longest)
    assert await IssuedTable(store).unexpired(NOW) == [longest]


async def test_a_serial_number_is_used_once_by_an_issuer(store: Store) -> None:
    table = IssuedTable(store)
    await table.record(issue(5))
    with pytest.raises(StateError, match="unique"):
        await table.record(issue(5, key_id=b"x" * 32))
    await table.record(issue(5, ROOT))
    assert await table.count_by_issuer() == {"root": 1, "client-ca": 1}


async def test_issues_that_are_recorded_together_are_counted_each(store: Store) -> None:
    table = IssuedTable(store)
    await table.record(issue(3))
    records = [issue(serial) for serial in range(1, 6)] + [issue(1, ROOT), issue(2, ROOT)]
    outcomes = await asyncio.gather(*map(table.record, records), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [StateError]
    assert isinstance(outcomes[2], StateError)
    assert await table.count_by_issuer() == {"root": 2, "client-ca": 5}
    assert len(await table.unexpired(NOW)) == 7


def counted(records: list[IssuedRecord]) -> Callable[[Connection], dict[str, int]]:
    def work(connection: Connection) -> dict[str, int]:
        issued.add(connection, records)
        return issued.count_by_issuer(connection)

    return work


async def test_one_call_counts_for_each_issuer(store: Store) -> None:
    records = [issue(serial) for serial in range(1, 6)] + [issue(1, ROOT), issue(2, ROOT)]
    assert await store.write(counted(records)) == {"root": 2, "client-ca": 5}


async def test_what_a_revoke_must_deny_is_what_is_not_over(store: Store) -> None:
    table = IssuedTable(store)
    over, mine, other = issue(1, not_after=NOW), issue(2), issue(3, holder=b"o" * 16)
    for one in (over, mine, other):
        await table.record(one)
    assert await table.unexpired(NOW, holders=[b"h" * 16]) == [mine]
    assert await table.unexpired(NOW) == [mine, other]


async def test_counts_stay_when_expired_rows_go(store: Store) -> None:
    table = IssuedTable(store)
    await table.record(issue(1, not_after=NOW))
    await table.record(issue(2))
    forget = partial(issued.forget, before=NOW + timedelta(seconds=1))
    assert await store.write(forget) == 1
    assert [one.serial for one in await table.unexpired(NOW - timedelta(days=1))] == [2]
    assert await table.count_by_issuer() == {"root": 0, "client-ca": 2}


async def test_a_naive_or_foreign_date_is_refused_or_turned_to_utc(store: Store) -> None:
    table = IssuedTable(store)
    with pytest.raises(StateError, match="naive date"):
        await table.record(issue(1, at=NOW.replace(tzinfo=None)))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9))).replace(microsecond=999_999)
    await table.record(issue(1, at=elsewhere))
    (found,) = await table.unexpired(NOW)
    assert (found.at, found.at.tzinfo) == (NOW, UTC)


# --- Clients and acknowledgements


def client(number: int, **changes: object) -> ClientRecord:
    usual = ClientRecord(
        id=bytes([number]) * 16,
        host=f"client-{number:02}",
        claimed="127.0.1.7",
        seen="127.0.1.7",
        port=14172,
        protocol=1,
        version="0.1.0",
        last_registration=NOW,
        key_not_after=NOW + timedelta(days=7),
        root=ROOT,
        responder=b"s" * 16,
        token_out=b"new",
        token_shown=b"old",
        lost_at=None,
        first_seen=NOW,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # each test names real fields


@pytest.mark.req("F3")
async def test_the_registry_comes_back_as_it_was_saved(store: Store) -> None:
    registry: RegistryStore = ClientTable(store)
    bare = client(
        1,
        last_registration=None,
        key_not_after=None,
        root=None,
        token_out=None,
        token_shown=None,
        lost_at=NOW,
    )
    await registry.save([client(2), bare])
    assert await registry.load() == [bare, client(2)]


async def test_a_row_replaces_the_one_of_its_client(store: Store) -> None:
    registry = ClientTable(store)
    await registry.save([client(1), client(2)])
    await registry.save([client(2, host="a"), client(3), client(2, host="b")])
    await registry.save([])
    assert await registry.load() == [client(1), client(2, host="b"), client(3)]


async def test_a_row_that_is_refused_takes_its_batch_with_it(store: Store) -> None:
    registry = ClientTable(store)
    await registry.save([client(1)])
    with pytest.raises(StateError):
        await registry.save([client(1, host="new"), client(2, host=None)])
    assert await registry.load() == [client(1)]


def ack(number: int, **changes: object) -> AckRecord:
    usual = AckRecord(
        component=bytes([number]) * 16,
        slot=b"s" * 32,
        n=7,
        entry_id=b"e" * 32,
        spki=b"p" * 91,
        signature=b"sig",
        role="client",
        credentials=(
            Credential("client-tls", b"k" * 32, ROOT, 1_900_000_000),
            Credential("client-ca", b"c" * 32, ROOT, 1_900_000_001),
        ),
        at=NOW,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # each test names real fields


async def test_the_last_acknowledgement_of_a_component_and_slot_is_kept(store: Store) -> None:
    acks: AckStore = AckTable(store)
    for one in (ack(2), ack(1), ack(2, n=8, credentials=()), ack(2, slot=b"t" * 32), ack(1, n=3)):
        await acks.save_ack(one)
    assert await acks.load_acks() == [
        ack(1, n=3),
        ack(2, n=8, credentials=()),
        ack(2, slot=b"t" * 32),
    ]


async def test_of_acknowledgements_that_come_together_the_last_is_kept(store: Store) -> None:
    acks = AckTable(store)
    await asyncio.gather(*map(acks.save_ack, (ack(1), ack(2), ack(1, n=8), ack(1, slot=b"t" * 32))))
    assert await acks.load_acks() == [ack(1, n=8), ack(1, slot=b"t" * 32), ack(2)]


# --- Bundles


async def test_every_export_is_recorded_and_counted(store: Store) -> None:
    first = partial(bundles.export, content=b"one", fingerprint=b"f" * 32, actor="alice", at=NOW)
    again = partial(first, actor="bob")
    other = partial(first, content=b"two")
    done = [await store.write(each) for each in (first, again, other)]
    assert [(each.seq, each.actor) for each in done] == [(1, "alice"), (2, "bob"), (3, "alice")]
    assert done[0].digest == done[1].digest == hashlib.sha256(b"one").digest()
    assert {each.fingerprint for each in done} == {b"f" * 32}
    assert await store.read(bundles.every) == done
    assert await store.read(bundles.count) == 3
    assert sorted(await store.read(bundles.contents)) == [b"one", b"two"]
    acts = [line.act for line in await store.read(audit.latest)]
    assert [(a.actor, a.action) for a in acts][::-1] == [
        ("alice", "bundle.export"),
        ("bob", "bundle.export"),
        ("alice", "bundle.export"),
    ]
