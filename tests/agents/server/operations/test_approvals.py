"""Approvals, and what a revoked component is denied."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.errors import StateError
from agents.server.app import Server
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from agents.server.store import approvals
from pki import certificates, heads
from pki.certificates import Kind
from protocol.messages import Issued
from tests.agents.server.operations.machines import ME, code
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.servers import enrolled, prepared


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
    assert [row["state"] for row in log] == ["denied", "approved", *["pending"] * 3], "newest first"


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


@pytest.mark.req("I2")
async def test_a_beginning_that_two_fingerprints_have_decides_on_neither(
    operations: ServerOperations, server: Server
) -> None:
    for last in (1, 2):
        ask = partial(
            approvals.ask,
            identity=bytes([7] * 31 + [last]),
            role="hub",
            host="hub",
            address="127.0.0.9",
            at=server.clock.now(),
        )
        await server.store.write(ask)
    with pytest.raises(OperationError, match="2 requests") as refusal:
        await operations.approvals_decide(ME, "07" * 31, "approve", "")
    assert code(refusal) == "not-found"
    assert [row["state"] for row in await operations.approvals()] == ["pending"] * 2
    row = await operations.approvals_decide(ME, "07" * 31 + "01", "approve", "")
    assert row["state"] == "approved"


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
