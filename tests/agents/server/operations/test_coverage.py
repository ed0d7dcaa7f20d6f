"""Who has followed, by name, and the log of who did what."""

import pytest

from agents.runtime.errors import StateError
from agents.server.app import Server
from agents.server.operations import ServerOperations
from agents.server.store import audit
from pki.certificates import Kind
from tests.agents.server.operations.machines import ME, ROOT0, ROOT1, machines, two_roots
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.servers import enrolled


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
    status = await operations.status()
    assert status["clients"] == {"total": 4, "present": 3, "behind": 3}
    assert set(status["behind"]) == {f"client {row['host']}" for row in coverage["behind"]}


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
