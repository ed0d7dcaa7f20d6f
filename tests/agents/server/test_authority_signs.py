"""What the server's newest root signs: heads, and the server's own keys."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from agents.responder.records import IssuedRecord
from agents.runtime.errors import StateError
from agents.server.authority import OWN_KINDS
from pki import certificates, heads
from pki.certificates import Kind
from pki.entries import Genesis, Revoke, Rotate
from pki.keys import KeyId
from protocol.messages import Issued
from tests.support.authority import make_root, revoke_first
from tests.support.clock import START, FakeClock
from tests.support.components import Component
from tests.support.files import Failure, MemoryFiles
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
        due = START + timedelta(hours=1)
        assert server.authority.head_due() == due
        clock.move(timedelta(minutes=40))
        assert server.authority.head_due() == due
        clock.move(timedelta(hours=2))
        assert server.authority.head_due() == due


async def test_a_head_that_was_signed_while_the_clock_was_ahead_keeps_no_other_back(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        clock.jump(timedelta(days=365))
        server.authority.sign_head()
        clock.jump(-timedelta(days=365))
        assert server.authority.head_due() == clock.now() + timedelta(hours=1)


@pytest.mark.req("I2")
async def test_what_is_denied_is_denied_by_each_head_until_something_else_is_said(
    tmp_path: Path,
) -> None:
    one, two = KeyId(b"\x01" * 32), KeyId(b"\x02" * 32)
    async with prepared(tmp_path) as server:
        server.authority.sign_head([one, two])
        server.authority.sign_head()
        assert server.trust.denied == {one, two}
        await make_root(server)
        assert server.trust.denied == {one, two}
        await revoke_first(server)
        assert server.trust.denied == {one, two}
        server.authority.sign_head([two])
        assert server.trust.denied == {two}
        server.authority.sign_head([])
        assert server.trust.denied == frozenset()


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


@pytest.mark.req("A5", "A12")
@pytest.mark.parametrize("kind", OWN_KINDS)
async def test_our_own_keys_are_named_after_us_and_have_the_window_of_their_kind(
    tmp_path: Path, kind: Kind
) -> None:
    async with prepared(tmp_path) as server:
        held = server.keyring.credential(kind)
        assert held is not None
        assert held.leaf.name == certificates.name_of(
            server.trust.deployment, kind, server.member.id
        )
        assert held.window == server.settings.policies()[kind].window


async def test_own_issues_are_said_as_any_other(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        with logged() as lines:
            await server.certify(Kind.SERVER_TLS, "test")
        held = server.keyring.credential(Kind.SERVER_TLS)
        assert held is not None
        said = {line["event"]: line for line in lines}
        assert said["certificate.issued"]["fingerprint"] == held.leaf.fingerprint
        used = said["key.activated"]
        assert used["fingerprint"] == held.leaf.fingerprint
        assert used["kind"] == "server-tls"
        assert used["root"] == server.authority.chain.current_root.key_id.hex()
        assert used["not_after"] == f"{held.leaf.not_after:%FT%T}.000Z"
        assert used["reason"] == "test"


async def test_a_key_that_could_not_be_put_into_use_is_not_said_to_be(tmp_path: Path) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files) as server:
        before = server.keyring.credential(Kind.SERVER_TLS)
        files.fail(2, Failure.BEFORE)  # pki.db has the key, and is to have its certificate
        with logged() as lines, pytest.raises(StateError):
            await server.authority.certify(Kind.SERVER_TLS, "test")
        assert "key.activated" not in {line["event"] for line in lines}
        assert server.keyring.credential(Kind.SERVER_TLS) == before


async def test_a_root_that_has_not_begun_signs_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        before = server.keyring.credential(Kind.SERVER_TLS)
        clock.jump(-timedelta(days=365))
        with pytest.raises(StateError) as refusal:
            await server.authority.certify(Kind.SERVER_TLS, "test")
        assert refusal.value.text.startswith("no server-tls key can be signed: issuer is valid")
        assert "set the clock" in refusal.value.hint
        assert server.keyring.credential(Kind.SERVER_TLS) == before


@pytest.mark.req("B7")
async def test_under_a_new_root_the_client_ca_is_renewed_first_and_the_head_signed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with prepared(tmp_path) as server:
        record, heads_then = server.issued.record, list[bytes | None]()

        async def noted(issued: IssuedRecord) -> None:
            heads_then.append(server.trust.latest_head())
            await record(issued)

        monkeypatch.setattr(server.issued, "record", noted)
        with logged() as lines:
            await make_root(server)
        used = [line for line in lines if line["event"] == "key.activated"]
        assert [line["kind"] for line in used] == ["client-ca", "server-tls", "message-signing"]
        assert {line["reason"] for line in used} == {"new root"}
        (followed,) = [line for line in lines if line["event"] == "ledger.followed"]
        assert followed["source"] == "ourselves"
        assert heads_then == [None] * 3
        assert server.trust.latest_head() is not None


@pytest.mark.req("B7")
async def test_a_new_root_takes_up_the_keys_that_it_can_and_says_which_it_cannot(
    tmp_path: Path,
) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files) as server:
        # standby.db, pki.db, ledger, standby.db, and then the key of the client CA
        files.fail(5, Failure.BEFORE)
        with logged() as lines:
            await make_root(server)
        newest = server.authority.chain.current_root.key_id
        roots = {held.kind: held.root for held in server.keyring.credentials}
        assert {kind for kind, root in roots.items() if root != newest} == {Kind.CLIENT_CA}
        (line,) = [line for line in lines if line["event"] == "key.renewal_failed"]
        assert line["kind"] == "client-ca"
        assert "cannot write" in str(line["reason"])
        assert server.trust.latest_head() is not None


async def test_own_issues_are_on_record_before_they_are_in_use(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        before = server.keyring.credential(Kind.SERVER_TLS)
        server.store.close()
        with pytest.raises(Exception, match="closed"):
            await server.authority.certify(Kind.SERVER_TLS, "test")
        assert server.keyring.credential(Kind.SERVER_TLS) == before


@pytest.mark.req("J4")
async def test_each_entry_says_when_and_names_its_audit_record(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        clock.move(timedelta(days=1))
        await server.new_root(b"\x08" * 32)
        clock.move(timedelta(days=1))
        server.revoke([server.authority.chain.roots[0].key_id], b"\x09" * 32)
        bodies = [entry.parse() for entry in server.authority.chain.entries]
    assert [type(body.payload) for body in bodies] == [Genesis, Rotate, Revoke]
    assert [body.audit for body in bodies] == [bytes(32), b"\x08" * 32, b"\x09" * 32]
    began = int(START.timestamp())
    assert [body.time - began for body in bodies] == [0, 86400, 2 * 86400]
