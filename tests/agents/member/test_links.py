"""Open links after a change of trust (*Effect* 2): which end at once, which a minute later."""

import asyncio
import gc
import weakref

import pytest

from agents.member.links import REMAKE_WITHIN, SETTLED, Links
from agents.member.member import Member
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.loops import SteppedLoop, stepped


class Case:
    def __init__(self) -> None:
        self.site = Deployment()
        self.member: Member = self.site.member(Role.SERVER)
        self.links = Links(self.member.trust)
        self.watching = asyncio.ensure_future(self.links.watch())

    def link(self, role: Role = Role.CLIENT, *, root: int = -1) -> FakeChannel:
        channel = FakeChannel(peer=self.site.peer(role, root=root))
        self.links.add(channel.channel)
        return channel

    def accept(self, link_class: LinkClass = LinkClass.MEMBER) -> FakeChannel:
        channel = FakeChannel(peer=self.site.peer(Role.CLIENT), link_class=link_class)
        self.links.accept(channel.channel)
        return channel

    def follow(self) -> None:
        self.following = asyncio.ensure_future(self.links.follow(self.member))

    async def teach(self) -> None:
        self.site.teach(self.member.trust)
        await settle()


@pytest.mark.req("B4")
@stepped
async def test_a_link_under_a_revoked_root_ends_at_once(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    case.site.rotate()
    await case.teach()
    old, new = case.link(root=0), case.link(root=1)
    case.site.revoke(0)
    await case.teach()
    assert old.code is CloseCode.REVOKED
    assert new.is_open


@pytest.mark.req("B4")
@stepped
async def test_a_link_that_opens_after_its_root_was_revoked_ends_at_once(
    loop: SteppedLoop,
) -> None:
    case = Case()
    await settle()
    case.site.rotate()
    case.site.revoke(0)
    await case.teach()
    late = case.link(root=0)
    assert late.code is CloseCode.REVOKED
    assert case.link(root=1).is_open


@pytest.mark.req("I2")
@stepped
async def test_a_link_of_a_denied_key_ends_at_once(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    denied, other = case.link(Role.HUB), case.link(Role.HUB)
    assert denied.peer is not None
    case.site.deny(denied.peer.leaf.key_id)
    await case.teach()
    assert denied.code is CloseCode.REVOKED
    assert other.is_open


@stepped
async def test_a_link_below_a_denied_client_ca_ends_at_once(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    denied, other = case.link(), case.link()
    assert denied.peer is not None
    assert denied.peer.ca is not None
    case.site.deny(denied.peer.ca)
    await case.teach()
    assert denied.code is CloseCode.REVOKED
    assert other.is_open


@pytest.mark.req("B9")
@stepped
async def test_other_links_have_a_minute_to_be_made_again(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    old = case.link()
    case.site.rotate()
    await case.teach()
    remade = case.link()
    await loop.pass_time(REMAKE_WITHIN - 5)
    assert old.is_open
    await loop.pass_time(6)
    assert old.code is CloseCode.TRUST_CHANGED
    assert remade.is_open


@pytest.mark.req("B9")
@stepped
async def test_a_link_that_is_made_before_the_change_is_looked_at_stays(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    old = case.link()
    case.site.rotate()
    case.site.teach(case.member.trust)
    remade = case.link()  # under the new trust, before whoever watches has been woken
    await settle()
    await loop.pass_time(REMAKE_WITHIN + 1)
    assert old.code is CloseCode.TRUST_CHANGED
    assert remade.is_open


@stepped
async def test_a_head_that_changes_no_trust_ends_nothing(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    link = case.link()
    case.site.deny()
    await case.teach()
    await loop.pass_time(2 * REMAKE_WITHIN)
    assert link.is_open


@stepped
async def test_a_link_that_proves_nobody_has_a_minute_too(loop: SteppedLoop) -> None:
    case = Case()
    await settle()
    stranger = FakeChannel()
    case.links.add(stranger.channel)
    case.site.rotate()
    case.site.revoke(0)
    await case.teach()
    assert stranger.is_open
    await loop.pass_time(REMAKE_WITHIN + 1)
    assert stranger.code is CloseCode.TRUST_CHANGED


@stepped
async def test_links_are_found_by_role_and_id_while_they_are_open(loop: SteppedLoop) -> None:
    case = Case()
    hub, client = case.link(Role.HUB), case.link()
    assert case.links.find(Role.HUB) == [hub.channel]
    assert hub.peer is not None
    assert len(case.links.of(hub.peer.name.id)) == 2  # the site gives both the same id
    hub.lose()
    await settle()
    assert case.links.find(Role.HUB) == []
    assert list(case.links) == [client.channel]
    assert len(case.links) == 1


@stepped
async def test_a_link_that_is_no_member_link_is_not_found(loop: SteppedLoop) -> None:
    case = Case()
    link = FakeChannel(peer=case.site.peer(Role.HUB), link_class=LinkClass.ENROLMENT)
    case.links.add(link.channel)
    assert case.links.find(Role.HUB) == []


@stepped
async def test_a_link_that_is_gone_is_kept_by_nobody(loop: SteppedLoop) -> None:
    case = Case()
    link = case.link()
    known = weakref.ref(link)
    link.lose()
    await settle()
    del link
    gc.collect()
    assert known() is None


@stepped
async def test_at_the_end_of_a_program_every_link_is_told(loop: SteppedLoop) -> None:
    case = Case()
    links = [case.link(), case.link(Role.HUB)]
    await case.links.close()
    assert [link.code for link in links] == [CloseCode.GOING_AWAY] * 2


class TestOwnCertificate:
    """Links that were made to us are made again under our new certificate."""

    async def case(self) -> tuple[Case, FakeClock]:
        case = Case()
        clock = case.member.clock
        assert isinstance(clock, FakeClock)
        case.site.certify(case.member.keyring, case.member.kind)
        case.follow()
        await settle()
        return case, clock

    def renew(self, case: Case) -> None:
        case.site.certify(case.member.keyring, case.member.kind)
        case.member.credential_changed()

    @stepped
    async def test_those_that_were_accepted_end_a_second_later(self, loop: SteppedLoop) -> None:
        case, clock = await self.case()
        accepted, dialled, stranger = case.accept(), case.link(), case.accept(LinkClass.DISCOVERY)
        self.renew(case)
        await settle()
        later = case.accept()
        await clock.advance_network(SETTLED - 0.1)
        assert accepted.is_open
        await clock.advance_network(0.2)
        assert accepted.code is CloseCode.TRUST_CHANGED
        assert [x.is_open for x in (dialled, stranger, later)] == [True, True, True]

    @stepped
    async def test_a_change_of_trust_alone_ends_none(self, loop: SteppedLoop) -> None:
        case, clock = await self.case()
        accepted = case.accept()
        case.site.rotate()
        await case.teach()
        await clock.advance_network(10 * SETTLED)
        assert accepted.is_open

    @stepped
    async def test_the_next_renewal_counts_too(self, loop: SteppedLoop) -> None:
        case, clock = await self.case()
        for _ in range(3):
            accepted = case.accept()
            self.renew(case)
            await settle()
            await clock.advance_network(SETTLED)
            assert accepted.code is CloseCode.TRUST_CHANGED

    @stepped
    async def test_a_renewal_right_after_another_counts_too(self, loop: SteppedLoop) -> None:
        case, clock = await self.case()
        self.renew(case)
        await settle()
        between = case.accept()
        self.renew(case)
        await clock.advance_network(3 * SETTLED)
        assert between.code is CloseCode.TRUST_CHANGED
