"""What the server's newest root signs: heads, and the server's own keys."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.server.authority import found
from agents.server.standby import Standby
from pki import certificates, heads
from pki.certificates import Kind
from pki.entries import Rotate
from protocol.messages import Issued
from tests.support.authority import make_root
from tests.support.clock import START, FakeClock
from tests.support.components import Component
from tests.support.files import MemoryFiles
from tests.support.logs import logged
from tests.support.servers import enrolled, prepared

# --- heads


async def test_heads_never_go_back_whatever_the_clock_does(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        times = []
        for jump in (timedelta(), timedelta(hours=2), -timedelta(days=30), timedelta(seconds=1)):
            clock.jump(jump)
            times.append(heads.parse_head(server.authority.sign_head()).head.time)
            assert heads.parse_head(server.trust.latest_head() or b"").head.time == times[-1]
        await make_root(server)
        held = server.trust.head(server.authority.slot)
        assert held is not None
        times.append(held.time)
        assert times == sorted(set(times))


async def test_a_head_is_due_an_hour_after_the_last(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        assert server.authority.head_due() == clock.now() + timedelta(hours=1)


# --- issuing


@pytest.mark.req("A5", "A9", "B7")
async def test_the_client_ca_is_replaced_without_the_root(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        before = server.keyring.credential(Kind.CLIENT_CA)
        entry = server.authority.chain.last
        await server.certify(Kind.CLIENT_CA, "test")
        after = server.keyring.credential(Kind.CLIENT_CA)
        assert before is not None
        assert after is not None
        assert before.leaf.key_id != after.leaf.key_id
        assert server.authority.chain.last == entry
        answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
        assert certificates.read(answer.chain[1]).key_id == after.leaf.key_id  # type: ignore[union-attr]  # a refusal fails here


@pytest.mark.req("A13")
async def test_a_client_ca_too_short_for_a_new_validity_is_replaced_before_it_signs(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        before = server.keyring.credential(Kind.CLIENT_CA)
        assert before is not None
        await server.settings.set(
            "pki_client_tls_key_duration_days", "300", actor="test", at=clock.now()
        )
        answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
        assert type(answer).__name__ == "Issued"
        leaf, ca = (certificates.read(der) for der in answer.chain[:2])  # type: ignore[union-attr]  # a refusal fails here
        assert ca.key_id != before.leaf.key_id
        assert leaf.not_after - clock.now() == timedelta(days=300)
        assert ca.not_after >= leaf.not_after


@pytest.mark.req("A13")
async def test_two_clients_at_once_have_a_short_client_ca_replaced_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        before = await server.issued.count_by_issuer()
        await server.settings.set(
            "pki_client_tls_key_duration_days", "300", actor="test", at=clock.now()
        )
        answers = await asyncio.gather(
            *(enrolled(server, Component(), Kind.CLIENT_TLS) for _ in range(8))
        )
        after = await server.issued.count_by_issuer()
        assert after["root"] == before["root"] + 1  # one client CA
        leaves = [
            certificates.read(answer.chain[0]) for answer in answers if isinstance(answer, Issued)
        ]
        assert len(leaves) == 8
        assert {leaf.not_after for leaf in leaves} == {clock.now() + timedelta(days=300)}


async def test_own_issues_are_said_as_any_other(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        with logged() as lines:
            await server.certify(Kind.SERVER_TLS, "test")
        held = server.keyring.credential(Kind.SERVER_TLS)
        assert held is not None
        said = {line["event"]: line["fingerprint"] for line in lines if "fingerprint" in line}
        assert said["certificate.issued"] == said["key.activated"] == held.leaf.fingerprint


async def test_own_issues_are_on_record_before_they_are_in_use(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        before = server.keyring.credential(Kind.SERVER_TLS)
        server.store.close()
        with pytest.raises(Exception, match="closed"):
            await server.authority.certify(Kind.SERVER_TLS, "test")
        assert server.keyring.credential(Kind.SERVER_TLS) == before


def test_an_audit_hash_is_in_its_entry() -> None:
    files = MemoryFiles()
    keyring = Keyring(Path("/s/pki.db"), files)
    standby = Standby(Path("/s/standby.db"), Path("/k/standby.key"), files)
    chain = found(keyring, standby, fqdn="a.example", now=START)
    body = chain.entries[0].parse()
    assert body.audit == bytes(32)
    assert not isinstance(body.payload, Rotate)
