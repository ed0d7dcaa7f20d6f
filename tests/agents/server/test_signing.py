"""Who gets a hub's or zone server's certificate: whom an administrator has let in (I2)."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from agents.server.app import Server
from agents.server.signing import ApprovedSigning
from agents.server.store import approvals
from agents.server.store.approvals import State
from pki import certificates
from pki.certificates import Kind
from protocol.messages import Issued, Pending, Refused
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.logs import logged
from tests.support.servers import enrolled, prepared

RETRY = 5.0
"""`pending_seconds` of the servers of these tests."""


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with prepared(tmp_path) as made:
        yield made


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


@pytest.mark.req("I2")
@pytest.mark.parametrize("kind", [Kind.HUB_TLS, Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA])
async def test_one_waits_until_it_is_approved(server: Server, kind: Kind) -> None:
    component = Component()
    for _ in range(2):
        answer = await enrolled(server, component, kind)
        assert answer == Pending(fingerprint=component.key_id.hex(), retry_after=RETRY)
    await decide(server, component, State.APPROVED)
    answer = await enrolled(server, component, kind)
    assert isinstance(answer, Issued)
    leaf = certificates.read(answer.chain[0])
    assert leaf.kind is kind
    assert leaf.name is not None
    assert leaf.name.id == component.id
    assert len(answer.chain) == 2  # the root signs it itself (A5)


@pytest.mark.req("I2")
@pytest.mark.parametrize("state", [State.DENIED, State.REVOKED])
async def test_a_refusal_holds_until_it_is_decided_otherwise(server: Server, state: State) -> None:
    component = Component()
    await enrolled(server, component, Kind.HUB_TLS)
    if state is State.REVOKED:
        await decide(server, component, State.APPROVED)
    await decide(server, component, state)
    for _ in range(3):
        answer = await enrolled(server, component, Kind.HUB_TLS)
        assert isinstance(answer, Refused)
        assert answer.reason == "approval"
        assert state.value in answer.text
        assert answer.retry_after == RETRY * 4
    await decide(server, component, State.APPROVED)
    assert isinstance(await enrolled(server, component, Kind.HUB_TLS), Issued)


@pytest.mark.req("I2")
async def test_the_approval_of_one_lets_in_no_other(server: Server) -> None:
    one, two = Component(), Component()
    await enrolled(server, one, Kind.HUB_TLS)
    await decide(server, one, State.APPROVED)
    assert isinstance(await enrolled(server, two, Kind.HUB_TLS, host="host"), Pending)


@pytest.mark.req("A12", "I2")
@pytest.mark.parametrize("kind", [Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA])
async def test_an_approved_hub_is_no_zone_server(server: Server, kind: Kind) -> None:
    component = Component()
    await enrolled(server, component, Kind.HUB_TLS)
    await decide(server, component, State.APPROVED)
    answer = await enrolled(server, component, kind)
    assert isinstance(answer, Refused)
    assert "known as hub" in answer.text


async def test_a_zone_server_is_approved_once_for_both_its_keys(server: Server) -> None:
    component = Component()
    await enrolled(server, component, Kind.ZONE_SERVER_TLS)
    await decide(server, component, State.APPROVED)
    for kind in (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA):
        assert isinstance(await enrolled(server, component, kind), Issued)


async def test_a_crowd_of_strangers_is_told_to_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = partial(approvals.ask, max_pending=2)
    monkeypatch.setattr(approvals, "ask", ask)
    known = Component()
    assert isinstance(await enrolled(server, known, Kind.HUB_TLS), Pending)
    assert isinstance(await enrolled(server, Component(), Kind.HUB_TLS), Pending)
    answer = await enrolled(server, Component(), Kind.HUB_TLS)
    assert isinstance(answer, Refused)
    assert answer.retry_after == RETRY
    assert isinstance(await enrolled(server, known, Kind.HUB_TLS), Pending)


@pytest.mark.req("I2")
async def test_the_first_request_is_one_line_with_the_fingerprint(tmp_path: Path) -> None:
    component, clock = Component(), FakeClock()
    with logged() as lines:
        async with prepared(tmp_path, clock=clock) as server:
            for _ in range(3):
                await enrolled(server, component, Kind.HUB_TLS, host="hub-1")
                clock.move(timedelta(minutes=5))
    (line,) = [line for line in lines if line["event"] == "approval.pending"]
    assert line["fingerprint"] == component.key_id.hex()
    assert (line["peer_role"], line["host"]) == ("hub", "hub-1")


async def test_hubs_keys_are_signed_by_the_root(server: Server) -> None:
    signing = ApprovedSigning(
        server.authority, server.store, server.clock, server.member.log, retry_after=RETRY
    )
    assert (await signing.terms(Kind.HUB_TLS)).issuer.chain == (
        server.authority.chain.current_root.der,
    )


@pytest.mark.req("A6")
async def test_sixty_enrolments_add_no_signature_of_a_root(server: Server) -> None:
    before = await server.issued.count_by_issuer()
    for _ in range(60):
        assert isinstance(await enrolled(server, Component(), Kind.CLIENT_TLS), Issued)
    after = await server.issued.count_by_issuer()
    assert after["root"] == before["root"]
    assert after["client-ca"] == before["client-ca"] + 60


@pytest.mark.req("B1", "A5")
async def test_after_a_rotation_the_newest_root_signs(server: Server) -> None:
    component = Component()
    await enrolled(server, component, Kind.HUB_TLS)
    await decide(server, component, State.APPROVED)
    await server.new_root(bytes(32))
    answer = await enrolled(server, component, Kind.HUB_TLS)
    assert isinstance(answer, Issued)
    assert certificates.read(answer.chain[-1]).key_id == server.authority.chain.current_root.key_id
