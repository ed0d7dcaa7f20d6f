"""A member on its way to its responder, over real links: whatever it lacks, it gets there."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from agents.member import uplink
from agents.member.uplink import LONGEST_OF_STRANGERS
from agents.runtime.channel import Channel
from agents.runtime.dialer import DialError
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Enrol, LedgerGet, Message, NonceGet, Refused
from tests.agents.member.climber import Case, classes
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.responder import responding
from tests.support.wiretap import tapping

pytestmark = pytest.mark.sockets

KIND = Kind.CLIENT_TLS
DISCOVERY, ENROLMENT, MEMBER = LinkClass.DISCOVERY, LinkClass.ENROLMENT, LinkClass.MEMBER


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    clock = FakeClock()
    yield clock
    assert clock.holds == 0, "nothing holds the clock when nothing is under way"


@pytest.mark.parametrize(
    ("link_class", "believed"), [(DISCOVERY, LONGEST_OF_STRANGERS), (MEMBER, 600.0)]
)
async def test_who_has_proven_nothing_silences_us_for_a_minute_at_most(
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    link_class: LinkClass,
    believed: float,
) -> None:
    case = Case(Deployment(), clock, ("192.0.2.66", 1))

    async def turned_away(*_address: object, **_options: object) -> Channel:
        raise DialError("come back", code=CloseCode.RETRY_AFTER, by_peer=True, retry_after=600.0)

    monkeypatch.setattr(uplink, "dial", turned_away)
    with pytest.raises(DialError) as refused:
        await case.uplink._step(link_class)
    assert refused.value.retry_after == believed


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

    @pytest.mark.parametrize("way", ["refuses", "breaks off"])
    async def test_that_shows_no_ledger_keeps_the_next_address_no_longer(
        self, clock: FakeClock, way: str
    ) -> None:
        async def spite(channel: Channel, _message: Message) -> Message:
            if way == "breaks off":
                channel.abort()
            return Refused(reason="busy", text="later")

        site, foreign = Deployment(), Deployment()
        async with responding(foreign, clock) as impostor, responding(site, clock) as responder:
            impostor.answering = spite
            case = Case(site, clock, impostor.address, responder.address)
            with pytest.raises(UnavailableError):
                await case.connect()
            assert classes(impostor) == [DISCOVERY]
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
