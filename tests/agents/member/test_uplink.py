"""A member on its way to its responder, over real links: whatever it lacks, it gets there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from agents.member.member import Member
from agents.member.uplink import KEEP_ALIVE, Address, Uplink
from agents.runtime.channel import Channel
from agents.runtime.dialer import DialError, refuse
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from pki.state import TrustState
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Done, Enrol, LedgerGet, Message, NonceGet, Ping, Pong, Refused
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.links import until
from tests.support.logs import logged
from tests.support.responder import Responder, responding
from tests.support.wiretap import tapping

pytestmark = pytest.mark.sockets

KIND = Kind.CLIENT_TLS
DISCOVERY, ENROLMENT, MEMBER = LinkClass.DISCOVERY, LinkClass.ENROLMENT, LinkClass.MEMBER


class Case:
    """A client and its uplink."""

    def __init__(
        self,
        site: Deployment,
        clock: FakeClock,
        *addresses: Address,
        state: TrustState | None = None,
    ) -> None:
        self.clock = clock
        self.member: Member = site.member(Role.CLIENT, clock=clock, state=state)
        self.addresses = list(addresses)
        self.uplink = Uplink(
            self.member,
            addresses=lambda: self.addresses,
            roles=frozenset({Role.SERVER}),
            handler=refuse,
            kind=KIND,
        )

    async def connect(self) -> None:
        (await self.uplink.connect()).close()

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.uplink.keep())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def standing(self) -> Channel:
        await until(lambda: self.uplink.link is not None and self.uplink.link.is_open)
        assert self.uplink.link is not None
        return self.uplink.link


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    clock = FakeClock()
    yield clock
    assert clock.holds == 0, "nothing holds the clock when nothing is under way"


def classes(responder: Responder) -> list[LinkClass]:
    return [channel.link_class for channel in responder.opened]


class TestClimb:
    async def test_a_newcomer_enrols_and_is_a_member(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.connect()
            assert classes(responder) == [ENROLMENT, MEMBER]
            await case.connect()
            assert classes(responder) == [ENROLMENT, MEMBER, MEMBER]
            assert len(responder.records.issued) == 1

    @pytest.mark.req("B6")
    async def test_a_newcomer_with_the_first_bundle_follows_and_enrols(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        first = site.state()
        for _ in range(4):
            site.rotate()
        site.revoke(0, 1, 2)
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address, state=first)
            await case.connect()
            assert classes(responder) == [DISCOVERY, ENROLMENT, MEMBER]
        assert case.member.trust.last(site.slot) == site.chain.last
        held = case.member.keyring.credential(KIND)
        assert held is not None
        assert held.root == site.root_id()

    @pytest.mark.req("B6", "B15")
    async def test_a_sleeper_comes_back_expired_and_under_a_revoked_root(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as before:
            case = Case(site, clock, before.address)
            await case.connect()
            id = case.member.id
        clock.jump(timedelta(days=400))
        site.rotate()
        site.revoke(0)
        async with responding(site, clock) as responder:
            case.addresses = [responder.address]
            await case.connect()
            assert classes(responder) == [DISCOVERY, ENROLMENT, MEMBER]
            (issued,) = responder.records.issued
        assert issued.holder == id == case.member.id

    @pytest.mark.req("B15")
    async def test_an_expired_certificate_is_not_even_shown(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.connect()
            clock.jump(timedelta(days=8))
            responder.certify()
            await case.connect()
            assert classes(responder) == [ENROLMENT, MEMBER, ENROLMENT, MEMBER]

    @pytest.mark.req("B5")
    async def test_one_in_date_under_a_root_revoked_meanwhile_re_keys(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as before:
            case = Case(site, clock, before.address)
            await case.connect()
        site.rotate()
        site.revoke(0)
        async with responding(site, clock) as responder:
            case.addresses = [responder.address]
            await case.connect()
            assert classes(responder) == [DISCOVERY, ENROLMENT, MEMBER]

    async def test_one_that_the_server_denies_looks_for_news_and_enrols(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.connect()
            held = case.member.keyring.credential(KIND)
            assert held is not None
            site.deny(held.leaf.key_id)
            site.teach(responder.member.trust)
            await case.connect()
            assert classes(responder)[2:] == [DISCOVERY, ENROLMENT, MEMBER]
            renewed = case.member.keyring.credential(KIND)
            assert renewed is not None
            assert renewed.leaf.key_id != held.leaf.key_id
            assert case.member.trust.denied == {held.leaf.key_id}

    async def test_the_next_address_is_tried_where_nobody_answers(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as gone:
            nobody = gone.address
        async with responding(site, clock) as responder:
            case = Case(site, clock, nobody, responder.address)
            await case.connect()
            assert classes(responder) == [ENROLMENT, MEMBER]

    async def test_gives_up_when_nobody_answers_anywhere(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as gone:
            case = Case(site, clock, gone.address, gone.address)
        with pytest.raises(DialError) as caught:
            await case.connect()
        assert caught.value.unreachable

    @pytest.mark.req("E7")
    async def test_with_a_wrong_clock_each_responder_is_tried_once(self, clock: FakeClock) -> None:
        site, behind = Deployment(), FakeClock()
        behind.jump(timedelta(days=-2))
        async with responding(site, clock) as responder, tapping(responder.address) as tap:
            case = Case(site, behind, tap.address, tap.address)
            with pytest.raises(DialError) as caught:
                await case.connect()
            assert caught.value.code is CloseCode.CLOCK
            assert tap.connections == 2

    async def test_without_an_address_there_is_no_way(self, clock: FakeClock) -> None:
        with pytest.raises(UnavailableError, match="no server is configured"):
            await Case(Deployment(), clock).connect()

    async def test_two_at_once_enrol_once(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await asyncio.gather(case.connect(), case.connect(), case.connect())
            assert len(responder.records.issued) == 1


class TestImpostor:
    """A server of another deployment, with the same names, where ours should be."""

    async def climb(self, case: Case) -> None:
        with pytest.raises(DialError) as caught:
            await case.connect()
        assert caught.value.code is CloseCode.UNTRUSTED

    @pytest.mark.req("B6")
    @pytest.mark.parametrize("certified", [True, False])
    async def test_is_asked_for_its_ledger_once_and_not_in_a_loop(
        self, clock: FakeClock, certified: bool
    ) -> None:
        site, foreign = Deployment(), Deployment()
        async with responding(foreign, clock) as impostor, tapping(impostor.address) as tap:
            case = Case(site, clock, tap.address)
            if certified:
                site.certify(case.member.keyring, KIND)
            before = case.member.trust.state
            await self.climb(case)
            assert classes(impostor) == [DISCOVERY]
            assert tap.connections == 3  # strict, discovery, strict again
            assert [type(message) for message in impostor.received] == [LedgerGet]
            assert case.member.trust.state == before

    @pytest.mark.parametrize("certified", [True, False])
    async def test_sees_no_certificate_no_id_and_no_request_of_ours(
        self, clock: FakeClock, certified: bool
    ) -> None:
        site, foreign = Deployment(), Deployment()
        async with responding(foreign, clock) as impostor, tapping(impostor.address) as tap:
            case = Case(site, clock, tap.address)
            if certified:
                site.certify(case.member.keyring, KIND)
            for _ in range(2):
                await self.climb(case)
            assert all(channel.peer is None for channel in impostor.opened)
            assert not impostor.received_of(Enrol)
            assert not impostor.received_of(NonceGet)
            assert impostor.records.issued == []
            seen = bytes(tap.towards)
        mine = [case.member.id, case.member.id.hex().encode(), case.member.keyring.identity_spki]
        for held in case.member.keyring.credentials:
            mine += [*held.chain, held.leaf.spki]
        for secret in mine:
            assert secret not in seen

    async def test_our_own_server_sees_the_certificate(self, clock: FakeClock) -> None:
        """The same look at an honest handshake: the look above would find it."""
        site = Deployment()
        async with responding(site, clock) as responder, tapping(responder.address) as tap:
            case = Case(site, clock, tap.address)
            site.certify(case.member.keyring, KIND, responder=responder.member.id)
            await case.connect()
            held = case.member.keyring.credential(KIND)
            assert held is not None
            assert held.chain[0] in bytes(tap.towards)

    async def test_does_not_keep_the_next_address_from_its_turn(self, clock: FakeClock) -> None:
        site, foreign = Deployment(), Deployment()
        async with responding(foreign, clock) as impostor, responding(site, clock) as responder:
            case = Case(site, clock, impostor.address, responder.address)
            await self.climb(case)
            await case.connect()
            assert MEMBER in classes(responder)

    @pytest.mark.req("A12")
    async def test_a_member_of_another_role_is_no_server(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock, role=Role.ZONE_SERVER) as zone:
            case = Case(site, clock, zone.address)
            with pytest.raises(DialError) as caught:
                await case.connect()
            assert caught.value.code is CloseCode.WRONG_ROLE
            assert zone.records.issued == []

    @pytest.mark.req("B4")
    async def test_with_the_keys_of_a_revoked_root_is_refused(self, clock: FakeClock) -> None:
        site = Deployment()
        thief = site.twin()
        site.rotate()
        site.revoke(0)
        async with responding(thief, clock) as impostor:
            case = Case(site, clock, impostor.address)
            await self.climb(case)
            assert classes(impostor) == [DISCOVERY]
            assert case.member.trust.last(site.slot) == site.chain.last


class TestKeep:
    async def test_stands_until_it_is_cancelled(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                link = await case.standing()
            assert (await link.closed()).code is CloseCode.GOING_AWAY
            assert case.uplink.link is None

    async def test_a_retry_after_is_honoured(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:

            async def busy(channel: Channel, message: Message) -> Message | None:
                if isinstance(message, Enrol):
                    return Refused(reason="busy", text="later", retry_after=7.0)
                return await responder.honest(channel, message)

            responder.answering = busy
            case = Case(site, clock, responder.address)
            async with case.keeping():
                await until(lambda: clock.due_network is not None)
                due = clock.due_network
                assert due is not None
                assert 7.0 <= due <= 8.0
                asked = len(responder.received_of(Enrol))
                await clock.advance_network(6.9)
                assert len(responder.received_of(Enrol)) == asked
                responder.answering = None
                clock.move_network(1.1)
                await case.standing()

    async def test_comes_back_when_the_responder_does(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as before:
            case = Case(site, clock, before.address)
            task = case.keeping()
            await task.__aenter__()
            await case.standing()
        await until(lambda: clock.due_network is not None)
        async with responding(site, clock) as responder:
            case.addresses = [responder.address]
            await clock.advance_network(60.0)
            assert (await case.standing()).remote == responder.address
            await task.__aexit__(None, None, None)

    async def test_says_once_why_there_is_no_link(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as gone:
            case = Case(site, clock, gone.address)
        with logged() as lines:
            async with case.keeping():
                for _ in range(3):
                    await until(lambda: clock.due_network is not None)
                    clock.move_network(60.0)
                    await settle()
        assert [line["event"] for line in lines].count("uplink.unavailable") == 1

    @pytest.mark.req("B9")
    async def test_a_change_of_trust_makes_the_new_link_first(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            opened: list[tuple[Channel, bool]] = []

            async def note(channel: Channel) -> None:
                old = responder.opened[-2] if len(opened) else None
                opened.append((channel, old is None or old.is_open))

            case.uplink.opened = note
            async with case.keeping():
                first = await case.standing()
                site.rotate()
                site.teach(responder.member.trust)
                site.teach(case.member.trust)
                await until(lambda: first.is_closed)
                second = await case.standing()
                assert second is not first
                assert [o for _, o in opened] == [True, True]
                assert (await first.closed()).code is CloseCode.SUPERSEDED

    @pytest.mark.req("B9")
    async def test_what_was_asked_on_the_old_link_is_answered_on_it(self, clock: FakeClock) -> None:
        site = Deployment()
        gate = asyncio.Event()
        async with responding(site, clock) as responder:

            async def slowly(channel: Channel, message: Message) -> Message | None:
                if isinstance(message, Ping):
                    await gate.wait()
                return await responder.honest(channel, message)

            responder.answering = slowly
            case = Case(site, clock, responder.address)
            async with case.keeping():
                first = await case.standing()
                asked = asyncio.ensure_future(
                    first.request(Ping(id=5, sender=case.member.id), hold=False)
                )
                await until(lambda: responder.received_of(Ping) != [])
                site.certify(case.member.keyring, KIND, responder=responder.member.id)
                case.member.credential_changed()
                await until(lambda: case.uplink.link is not first)
                assert first.is_open
                gate.set()
                answer = await asked
                assert isinstance(answer, Pong)
                await until(lambda: first.is_closed)

    @pytest.mark.req("B4")
    async def test_after_a_revocation_it_stands_under_the_new_root(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                first = await case.standing()
                site.rotate()
                site.teach(responder.member.trust)
                responder.certify()
                site.revoke(0)
                site.teach(responder.member.trust)
                assert (await first.closed()).code is CloseCode.REVOKED
                await until(lambda: case.member.trust.newest_root == site.root_id())
                second = await case.standing()
                assert second.peer is not None
                assert second.peer.root == site.root_id()

    async def test_a_silent_link_is_asked_whether_the_responder_is_there(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                await case.standing()
                await until(lambda: clock.due_network is not None)
                await clock.advance_network(KEEP_ALIVE - 1)
                assert responder.received_of(Ping) == []
                clock.move_network(1)
                await until(lambda: responder.received_of(Ping) != [])

    async def test_a_new_link_that_fails_at_once_leaves_no_old_one_behind(
        self, clock: FakeClock
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            fails = False

            async def greet(channel: Channel) -> None:
                if fails:
                    channel.abort()
                    await channel.request(Ping(id=1, sender=case.member.id))

            case.uplink.opened = greet
            async with case.keeping():
                first = await case.standing()
                fails = True
                case.member.keyring.discard(KIND)
                site.certify(case.member.keyring, KIND, responder=responder.member.id)
                case.member.credential_changed()
                assert (await first.closed()).code is CloseCode.SUPERSEDED
                fails = False
                await until(lambda: clock.due_network is not None)
                await clock.advance_network(30.0)
                assert (await case.standing()) is not first


class TestVisit:
    async def test_goes_over_the_standing_link(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                standing = await case.standing()
                used = await case.uplink.visit(self.same)
                assert used is standing
                assert standing.is_open

    async def test_makes_a_short_link_where_none_stands(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            used = await case.uplink.visit(self.same)
            assert used.is_closed
            assert (await used.closed()).code is CloseCode.NORMAL

    async def same(self, channel: Channel) -> Channel:
        assert channel.is_open
        return channel


class TestObtain:
    async def test_over_the_standing_link(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                await case.standing()
                before = case.member.keyring.credential(KIND)
                await case.uplink.obtain(KIND, "test")
                assert case.member.keyring.credential(KIND) is not before
                assert classes(responder)[:2] == [ENROLMENT, MEMBER]

    async def test_over_a_short_member_link(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.connect()
            await case.uplink.obtain(KIND, "test")
            assert classes(responder) == [ENROLMENT, MEMBER, MEMBER]
            assert len(responder.records.issued) == 2

    async def test_by_enrolling_where_there_is_nothing_to_show(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.uplink.obtain(KIND, "test")
            assert len(responder.records.issued) == 1
            assert case.member.certified(KIND)

    async def test_that_fails_leaves_what_there_was(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            await case.connect()
            before = case.member.keyring.credential(KIND)

            async def nothing(channel: Channel, message: Message) -> Message | None:
                return Done() if not isinstance(message, NonceGet) else Refused(reason="no")

            responder.answering = nothing
            with pytest.raises(UnavailableError):
                await case.uplink.obtain(KIND, "test")
            assert case.member.keyring.credential(KIND) is before
