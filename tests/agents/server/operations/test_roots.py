"""New roots and revocations: their refusals, and what is left afterwards."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from agents.server.app import Server
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from agents.server.store.schema import activity
from tests.agents.server.operations.machines import (
    ME,
    ROOT0,
    ROOT1,
    Machine,
    code,
    machines,
    two_roots,
)
from tests.support.clock import START, FakeClock
from tests.support.logs import logged


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
async def test_of_two_new_roots_at_once_the_second_is_asked_about(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    clock.move(timedelta(days=200))
    done = await asyncio.gather(
        *(operations.root_new(who, confirmed=False) for who in (ME, "unix:bob")),
        return_exceptions=True,
    )
    (refusal,) = [one for one in done if isinstance(one, BaseException)]
    assert isinstance(refusal, OperationError)
    assert refusal.code == "confirm"
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


@pytest.mark.req("B2")
async def test_of_two_revocations_at_once_the_second_is_refused(
    operations: ServerOperations, clock: FakeClock
) -> None:
    await two_roots(operations, clock)
    clock.move(timedelta(days=7))
    done = await asyncio.gather(
        *(
            operations.root_revoke(who, ROOT0, key_in_doubt=False, reason="old", confirmed=True)
            for who in (ME, "unix:bob")
        ),
        return_exceptions=True,
    )
    (refusal,) = [one for one in done if isinstance(one, BaseException)]
    assert isinstance(refusal, OperationError)
    assert refusal.code == "refused"
    assert "revoked already" in refusal.text
    assert [row["action"] for row in await operations.root_log()].count("root.revoke") == 1


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


@pytest.mark.req("J4")
async def test_who_made_and_revoked_which_root_is_on_record(
    operations: ServerOperations, clock: FakeClock
) -> None:
    await two_roots(operations, clock)
    clock.move(timedelta(days=7))
    await operations.root_revoke(ME, ROOT0, key_in_doubt=False, reason="old", confirmed=True)
    rows = [
        (row["actor"], row["action"], row["subject"], row["reason"], row["result"])
        for row in await operations.root_log()
    ]
    assert rows == [
        (ME, "root.revoke", ROOT0, "old", "done"),
        (ME, "root.new", ROOT1, "", "done"),
    ]


async def test_a_root_that_there_is_not_is_not_found(operations: ServerOperations) -> None:
    for call in (
        operations.root_revoke(ME, "x", key_in_doubt=True, reason="x", confirmed=True),
        operations.coverage("x"),
    ):
        with pytest.raises(OperationError, match="no root") as refusal:
            await call
        assert code(refusal) == "not-found"


async def test_a_line_that_was_changed_since_it_was_signed_is_called_so(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    await two_roots(operations, clock)
    assert [row["result"] for row in await operations.root_log()] == ["done"]
    another = update(activity).values(actor="unix:mallory")
    await server.store.write(lambda connection: connection.execute(another))
    (row,) = await operations.root_log()
    assert (row["actor"], row["result"]) == ("unix:mallory", "altered")
