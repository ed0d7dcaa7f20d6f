"""The standing link to a responder: kept, made again, and used."""

import asyncio
from collections.abc import Iterator

import pytest

from agents.member.uplink import KEEP_ALIVE
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Done, Enrol, Message, NonceGet, Ping, Pong, Refused
from tests.agents.member.climber import Case, classes
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.links import until
from tests.support.logs import logged
from tests.support.responder import responding

pytestmark = pytest.mark.sockets

KIND = Kind.CLIENT_TLS
ENROLMENT, MEMBER = LinkClass.ENROLMENT, LinkClass.MEMBER


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    clock = FakeClock()
    yield clock
    assert clock.holds == 0, "nothing holds the clock when nothing is under way"


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

    async def test_whoever_ends_each_link_is_not_dialled_in_a_loop(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                (await case.standing()).close()
                await until(lambda: classes(responder).count(LinkClass.MEMBER) == 2)
                (await case.standing()).close()
                await until(lambda: (clock.due_network or 60.0) <= 0.5)  # it waits
                assert classes(responder).count(LinkClass.MEMBER) == 2
                await clock.advance_network(0.5)
                await until(lambda: classes(responder).count(LinkClass.MEMBER) == 3)
                await case.standing()

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

    @pytest.mark.req("C8")
    async def test_a_full_disk_is_said_once_and_survived(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            case.files.full = True
            with logged() as lines:
                async with case.keeping():
                    for _ in range(3):
                        await until(lambda: clock.due_network is not None)
                        clock.move_network(60.0)
                        await settle()
                    assert case.uplink.link is None
                    case.files.full = False
                    await until(lambda: clock.due_network is not None)
                    clock.move_network(60.0)
                    await case.standing()
        said = [line for line in lines if line["event"] == "uplink.unavailable"]
        assert [line["hint"] for line in said] == ["free some space"]

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
    async def test_a_change_of_trust_while_a_link_is_made_has_it_made_again(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            connect, made = case.uplink.connect, list[Channel]()

            async def late() -> Channel:
                channel = await connect()
                if not made:
                    site.rotate()
                    site.teach(responder.member.trust)
                    site.teach(case.member.trust)
                made.append(channel)
                return channel

            monkeypatch.setattr(case.uplink, "connect", late)
            async with case.keeping():
                await until(lambda: len(made) == 2)
                assert (await made[0].closed()).code is CloseCode.SUPERSEDED

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

    async def test_who_had_to_enrol_makes_its_link_once(self, clock: FakeClock) -> None:
        site = Deployment()
        async with responding(site, clock) as responder:
            case = Case(site, clock, responder.address)
            async with case.keeping():
                first = await case.standing()
                await until(lambda: clock.due_network is not None)
                await clock.advance_network(KEEP_ALIVE / 2)
                assert classes(responder) == [LinkClass.ENROLMENT, LinkClass.MEMBER]
                assert await case.standing() is first

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
