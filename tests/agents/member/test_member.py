"""What a member holds together: what it shows, and when others have to look again."""

import asyncio
from datetime import timedelta

import pytest

from agents.member.member import LOOK_AGAIN
from pki.certificates import Kind
from pki.errors import PKIError
from pki.names import Role
from protocol.codes import CloseCode
from protocol.errors import Refusal
from protocol.messages import Ack
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment

KIND = Kind.CLIENT_TLS


class TestShown:
    def test_nothing_without_a_certificate(self) -> None:
        assert Deployment().member(Role.CLIENT).shown() is None

    def test_what_is_in_date_and_under_a_trusted_root(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        held = site.certify(member.keyring, KIND)
        assert member.shown() is held

    def test_nothing_that_has_expired(self) -> None:
        site, clock = Deployment(), FakeClock()
        member = site.member(Role.CLIENT, clock=clock)
        held = site.certify(member.keyring, KIND)
        clock.move(held.leaf.not_after - clock.now() - timedelta(seconds=1))
        assert member.shown() is held
        clock.move(timedelta(seconds=1))
        assert member.shown() is None
        assert not member.certified(KIND)

    @pytest.mark.req("E7")
    def test_nothing_that_is_not_good_yet(self) -> None:
        site, clock = Deployment(), FakeClock()
        member = site.member(Role.CLIENT, clock=clock)
        held = site.certify(member.keyring, KIND)
        clock.jump(held.leaf.not_before - clock.now())
        assert member.shown() is held
        clock.jump(timedelta(seconds=-1))
        assert member.shown() is None, "set back: a peer would not take it"
        assert not member.certified(KIND)

    def test_nothing_under_a_revoked_root(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        held = site.certify(member.keyring, KIND)
        site.rotate()
        site.teach(member.trust)
        assert member.shown() is held
        site.revoke(0)
        site.teach(member.trust)
        assert member.shown() is None

    @pytest.mark.req("F1", "A12")
    def test_its_name_says_role_and_id(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        held = site.certify(member.keyring, KIND)
        name = member.name(KIND)
        assert (name.deployment, name.role, name.id) == (site.id, Role.CLIENT, member.id)
        assert held.leaf.name == name


class TestVerifier:
    @pytest.mark.req("A12")
    @pytest.mark.parametrize("role", [Role.SERVER, Role.HUB, Role.ZONE_SERVER])
    def test_takes_the_roles_that_it_is_given(self, role: Role) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        verify = member.verifier(roles=frozenset({Role.SERVER}))
        other = site.member(role)
        held = site.certify(other.keyring, other.kind)
        if role is Role.SERVER:
            assert verify(held.chain).name.id == other.id
            return
        with pytest.raises(Refusal) as caught:
            verify(held.chain)
        assert caught.value.code is CloseCode.WRONG_ROLE

    def test_takes_the_id_that_it_is_given(self) -> None:
        site = Deployment()
        member, other = site.member(Role.HUB), site.member(Role.SERVER)
        held = site.certify(other.keyring, other.kind)
        roles = frozenset({Role.SERVER})
        assert member.verifier(roles=roles, id=other.id)(held.chain).name.id == other.id
        with pytest.raises(Refusal):
            member.verifier(roles=roles, id=bytes(16))(held.chain)

    @pytest.mark.req("G6")
    def test_takes_clients_of_one_responder(self) -> None:
        site = Deployment()
        member, other = site.member(Role.CLIENT), site.member(Role.CLIENT)
        held = site.certify(other.keyring, KIND, responder=bytes(16))
        responder = bytes(16)
        verify = member.verifier(roles=frozenset({Role.CLIENT}), client_ca_of=lambda: responder)
        assert verify(held.chain).name.id == other.id
        responder = bytes(range(16))
        with pytest.raises(Refusal):
            verify(held.chain)

    def test_a_refusal_keeps_its_cause(self) -> None:
        verify = Deployment().member(Role.CLIENT).verifier(roles=frozenset({Role.SERVER}))
        with pytest.raises(Refusal) as caught:
            verify((b"x",))
        assert isinstance(caught.value.__cause__, PKIError)


class TestChanged:
    async def test_by_trust(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        waiting = asyncio.ensure_future(member.changed_from(KIND, member.version(KIND)))
        await settle()
        assert not waiting.done()
        site.rotate()
        site.teach(member.trust)
        await waiting

    async def test_by_a_new_certificate(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        site.certify(member.keyring, KIND)
        waiting = asyncio.ensure_future(member.changed_from(KIND, member.version(KIND)))
        await settle()
        site.certify(member.keyring, KIND)
        member.credential_changed()
        await waiting

    async def test_not_by_a_certificate_of_another_kind(self) -> None:
        site = Deployment()
        member = site.member(Role.ZONE_SERVER)
        site.certify(member.keyring, Kind.ZONE_SERVER_TLS)
        version = member.version(Kind.ZONE_SERVER_TLS)
        waiting = asyncio.ensure_future(member.changed_from(Kind.ZONE_SERVER_TLS, version))
        await settle()
        site.certify(member.keyring, Kind.CLIENT_CA)
        member.credential_changed()
        await settle()
        assert not waiting.done()
        waiting.cancel()

    async def test_at_once_where_it_has_changed_already(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        version = member.version(KIND)
        site.certify(member.keyring, KIND)
        await member.changed_from(KIND, version)

    async def test_the_first_certificate_is_waited_for(self) -> None:
        site = Deployment()
        member = site.member(Role.CLIENT)
        waiting = asyncio.ensure_future(member.until_certified(KIND))
        await settle()
        assert not waiting.done()
        site.certify(member.keyring, KIND)
        member.credential_changed()
        await waiting

    async def test_one_that_is_not_valid_yet_is_when_the_clock_is_set_right(self) -> None:
        site, clock = Deployment(), FakeClock()
        member = site.member(Role.CLIENT, clock=clock)
        site.certify(member.keyring, KIND)
        clock.jump(-timedelta(days=2))
        waiting = asyncio.ensure_future(member.until_certified(KIND))
        await settle()
        assert not waiting.done()
        clock.jump(timedelta(days=2))  # and nothing of ours has changed
        await clock.advance_network(LOOK_AGAIN)
        await waiting


async def test_acknowledges_once_until_something_is_new() -> None:
    site = Deployment()
    member = site.member(Role.CLIENT)
    link = FakeChannel()
    await member.acknowledge(link.channel, bytes(16))
    await member.acknowledge(link.channel, bytes(16))
    assert len(link.asked_of(Ack)) == 1
