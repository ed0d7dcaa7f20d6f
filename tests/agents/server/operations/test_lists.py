"""What is listed of clients, and of the deployment."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agents.server.app import Server
from agents.server.operations import ServerOperations
from pki.certificates import Kind
from tests.agents.server.operations.machines import ME, ROOT0, machines
from tests.support.clock import START, FakeClock
from tests.support.components import Component
from tests.support.servers import enrolled


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
    await late.renew()
    assert [row["valid_key"] for row in await operations.clients()] == [False, True], "not proven"
    await late.register()
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


async def test_each_date_of_each_answer_is_to_the_second(
    operations: ServerOperations, server: Server, clock: FakeClock
) -> None:
    clock.move(timedelta(microseconds=123_456))
    await machines(server, "127.0.1.11")
    hub = Component()
    await enrolled(server, hub, Kind.HUB_TLS, host="hub-1")
    decided = await operations.approvals_decide(ME, hub.key_id.hex(), "approve", "")
    server.renewals[Kind.SERVER_TLS].next_at = clock.now()
    answers = [
        await operations.root_new(ME, confirmed=True),
        await operations.setting_set(ME, "pki_client_tls_key_duration_days", "6"),
        await operations.status(),
        await operations.roots(),
        await operations.root_log(),
        await operations.rotation(behind=False),
        decided,
        await operations.approvals(),
        await operations.approvals_log(),
        await operations.clients(),
        await operations.settings(),
    ]
    dates = set(re.findall(r'"(\d{4}-\d\d-\d\dT[^"]*)"', json.dumps(answers)))
    assert START.isoformat() in dates
    assert {date for date in dates if not re.fullmatch(r"[-T:\d]{19}\+00:00", date)} == set()
