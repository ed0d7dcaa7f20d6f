"""Standing in the line, over real links: who comes, who goes, and who is believed."""

import asyncio
from contextlib import suppress

import pytest

from agents.client.chain import CLAIM_AGAIN, CLAIM_INTERVAL, GRACE, MAX_CLAIMS
from pki.names import Role
from protocol.codes import CloseCode
from protocol.messages import (
    Done,
    HeadNotice,
    Neighbour,
    PeerHello,
    Ping,
    Pong,
    Refused,
    Registered,
)
from tests.agents.client.line import Stander, line
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.links import until
from tests.support.logs import logged

pytestmark = pytest.mark.sockets


class TestLine:
    @pytest.mark.req("G1")
    async def test_each_has_one_link_forward_and_one_backward(self) -> None:
        async with line(Deployment(), FakeClock(), 4) as (a, b, c, d):
            await until(lambda: a.follows(b) and b.follows(c) and c.follows(d))
            assert a.chain.backward is None
            assert d.chain.forward is None
            assert [len(x.links) for x in (a, b, c, d)] == [1, 2, 2, 1]

    @pytest.mark.req("G1")
    async def test_both_ends_of_a_link_prove_themselves(self) -> None:
        async with line(Deployment(), FakeClock(), 2) as (a, b):
            await until(lambda: a.follows(b))
            for end, other in ((a.chain.forward, b), (b.chain.backward, a)):
                assert end is not None
                assert end.peer is not None
                assert end.peer.name.role is Role.CLIENT
                assert end.peer.name.id == other.id

    @pytest.mark.req("G1")
    async def test_one_is_spliced_in(self) -> None:
        site, clock = Deployment(), FakeClock()
        async with line(site, clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            old = a.chain.forward
            assert old is not None
            c = Stander(site, clock)
            await c.start()
            c.put(b, a, revision=2)
            a.put(c, None, revision=2)
            b.put(None, c, revision=2)
            await until(lambda: a.follows(c) and c.follows(b))
            assert (await old.closed()).code is CloseCode.SUPERSEDED
            await c.stop()

    @pytest.mark.req("G1")
    async def test_the_neighbours_of_one_that_is_killed_are_linked(self) -> None:
        clock = FakeClock()
        async with line(Deployment(), clock, 3) as (a, b, c):
            await until(lambda: a.follows(b) and b.follows(c))
            await b.die()
            await until(lambda: a.pokes >= 2)
            assert a.chain.take_lost() == [b.id]
            assert a.chain.take_lost() == []
            a.put(c, None, revision=2)
            c.put(None, a, revision=2)
            await until(lambda: a.follows(c))

    async def test_one_behind_that_went_without_a_word_is_knocked_at_and_lost(self) -> None:
        clock = FakeClock()
        async with line(Deployment(), clock, 3) as (a, b, c):
            await until(lambda: a.follows(b) and b.follows(c))
            await b.die()
            await until(lambda: clock.due_network is not None)
            assert c.chain.take_lost() == []
            await clock.advance_network(GRACE)
            await until(lambda: c.pokes > 0)
            assert c.chain.take_lost() == [b.id]

    async def test_one_behind_that_is_there_again_within_a_second_is_not_lost(self) -> None:
        clock = FakeClock()
        async with line(Deployment(), clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            first = a.chain.forward
            assert first is not None
            first.abort()
            await until(lambda: a.chain.forward is not first and a.follows(b))
            await clock.advance_network(GRACE)
            await settle()
            assert b.chain.take_lost() == []

    async def test_one_behind_that_still_answers_is_not_lost(self) -> None:
        clock = FakeClock()
        async with line(Deployment(), clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            link = a.chain.forward
            assert link is not None
            a.put(None, None, revision=2)  # it has another plan; the other does not know
            link.abort()
            await until(lambda: clock.due_network is not None)
            await clock.advance_network(GRACE)
            await until(lambda: b.pokes > 0)
            assert b.chain.take_lost() == []

    async def test_one_behind_that_went_with_a_word_is_not_knocked_at(self) -> None:
        clock = FakeClock()
        async with line(Deployment(), clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            link = b.chain.backward
            await a.stop()
            await until(lambda: link is not None and link.is_closed)
            await settle()
            assert clock.due_network is None
            assert b.chain.take_lost() == []

    async def test_one_that_leaves_is_told_to_the_responder(self) -> None:
        async with line(Deployment(), FakeClock(), 2) as (a, b):
            await until(lambda: a.follows(b))
            await b.stop()
            await until(lambda: a.pokes > 0)

    async def test_without_a_forward_neighbour_the_link_is_given_up(self) -> None:
        async with line(Deployment(), FakeClock(), 2) as (a, b):
            await until(lambda: a.follows(b))
            link = a.chain.forward
            assert link is not None
            a.put(None, None, revision=2)
            assert (await link.closed()).code is CloseCode.SUPERSEDED
            assert a.chain.forward is None


class TestClaims:
    """Who stands behind us is what our responder says, and not what the one who comes says."""

    NEWEST = 2**63 - 1

    @pytest.mark.req("G1")
    async def test_a_client_of_the_responder_that_no_plan_names_cuts_nothing(self) -> None:
        site, clock = Deployment(), FakeClock()
        async with line(site, clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            link = a.chain.forward
            assert link is not None
            thief = Stander(site, clock)
            await thief.start()
            thief.put(b, None, revision=self.NEWEST)
            await until(lambda: b.pokes == 1)
            b.put(None, a)  # what the responder answers
            await until(lambda: thief.pokes > 0)
            assert thief.chain.forward is None
            assert link.is_open
            assert a.follows(b)
            assert thief.chain.take_lost() == [], "who refuses us is not gone"
            await thief.stop()

    @pytest.mark.req("G1")
    async def test_one_that_the_plan_names_is_taken_a_registration_later(self) -> None:
        site, clock = Deployment(), FakeClock()
        async with line(site, clock, 2) as (a, b):
            await until(lambda: a.follows(b))
            old = a.chain.forward
            assert old is not None
            c = Stander(site, clock)
            await c.start()
            c.put(b, a, revision=2)
            await until(lambda: b.pokes == 1)
            assert old.is_open
            b.put(None, c, revision=2)
            await until(lambda: c.follows(b))
            assert b.pokes == 1
            assert c.pokes == 0
            assert (await old.closed()).code is CloseCode.SUPERSEDED
            await c.stop()

    async def test_many_claims_cost_few_registrations_and_little_memory(self) -> None:
        site, clock = Deployment(), FakeClock()
        stander = Stander(site, clock)
        stander.put(None, None)
        for number in range(100):
            peer = site.peer(Role.CLIENT, id=number.to_bytes(16))
            answer = stander.chain.accept(FakeChannel(peer=peer).channel, _hello(3))
            assert isinstance(answer, Refused)
            assert answer.reason == "retry"
            assert answer.retry_after == CLAIM_AGAIN
            clock.move_network(CLAIM_INTERVAL / 50)
        assert stander.pokes == 2
        assert len(stander.chain._claims) == MAX_CLAIMS
        assert stander.chain.backward is None

    async def test_a_claim_that_the_plan_does_not_confirm_is_refused(self) -> None:
        site = Deployment()
        stander = Stander(site, FakeClock())
        stander.put(None, None)
        channel = FakeChannel(peer=site.peer(Role.CLIENT)).channel
        first = stander.chain.accept(channel, _hello(3))
        stander.put(None, None)
        second = stander.chain.accept(channel, _hello(3))
        assert isinstance(first, Refused)
        assert isinstance(second, Refused)
        assert (first.reason, second.reason) == ("retry", "place")

    async def test_a_claimant_that_has_gone_is_no_claimant(self) -> None:
        clock, site = FakeClock(), Deployment()
        async with line(site, clock, 1) as (front,):
            x, y = Stander(site, clock), Stander(site, clock)
            await x.start()
            await y.start()
            front.put(None, x)
            x.put(front, None)
            await until(lambda: x.follows(front))
            link = front.chain.backward
            assert link is not None
            await x.die()
            await link.closed()
            front.put(None, y)
            y.put(front, None)
            await until(lambda: y.follows(front))
            await y.stop()

    async def test_the_same_neighbour_replaces_its_own_link(self) -> None:
        site = Deployment()
        stander = Stander(site, FakeClock())
        peer = site.peer(Role.CLIENT)
        stander.chain.put(_placed(Neighbour(id=peer.name.id, address="", port=1)))
        first, second = FakeChannel(peer=peer), FakeChannel(peer=peer)
        assert stander.chain.accept(first.channel, _hello(3)) == Done()
        assert stander.chain.accept(second.channel, _hello(2)) == Done()
        await settle()
        assert first.code is CloseCode.SUPERSEDED
        assert second.is_open
        assert stander.pokes == 0


class TestBeforeThePlan:
    """Until the responder has answered once, whoever comes is taken; then it is judged."""

    async def test_one_that_no_plan_names_is_ended_by_the_second(self) -> None:
        site = Deployment()
        stander = Stander(site, FakeClock())
        early = FakeChannel(peer=site.peer(Role.CLIENT))
        assert stander.chain.accept(early.channel, _hello(1)) == Done()
        stander.put(None, None)
        await settle()
        assert early.is_open
        assert stander.pokes == 1, "the plan may be older than its coming"
        stander.put(None, None)
        await settle()
        assert early.code is CloseCode.SUPERSEDED
        assert stander.chain.backward is None

    async def test_one_that_the_plan_names_stays(self) -> None:
        site = Deployment()
        stander = Stander(site, FakeClock())
        peer = site.peer(Role.CLIENT)
        early = FakeChannel(peer=peer)
        assert stander.chain.accept(early.channel, _hello(1)) == Done()
        for _ in range(3):
            stander.chain.put(_placed(Neighbour(id=peer.name.id, address="", port=1)))
        await settle()
        assert early.is_open
        assert stander.pokes == 0


def _hello(revision: int) -> PeerHello:
    return PeerHello(revision=revision, address="", port=1)


def _placed(backward: Neighbour) -> Registered:
    return Registered(token=b"", observed="", backward=backward, revision=1)


class TestStrangers:
    async def test_another_client_at_the_neighbours_address_is_no_neighbour(self) -> None:
        clock, site = FakeClock(), Deployment()
        async with line(site, clock, 1) as (a,):
            expected, other = Stander(site, clock), Stander(site, clock)
            await other.start()
            expected.listener = other.listener
            with logged() as lines:
                a.put(expected, None)
                await until(lambda: any(e["event"] == "link.refused" for e in lines))
            assert a.chain.forward is None
            assert a.chain.take_lost() == []
            assert other.chain.backward is None
            expected.listener = None
            await other.stop()

    @pytest.mark.req("G6")
    async def test_a_client_of_another_responder_is_no_neighbour(self) -> None:
        clock, site = FakeClock(), Deployment()
        async with line(site, clock, 1) as (a,):
            foreign = Stander(site, clock, responder=bytes(16))
            await foreign.start()
            with logged() as lines:
                foreign.put(a, None)
                a.put(foreign, None)
                await until(lambda: len([e for e in lines if e["event"] == "link.refused"]) >= 2)
            assert a.chain.forward is None
            assert a.chain.backward is None
            assert foreign.chain.forward is None
            await foreign.stop()

    @pytest.mark.req("B4")
    async def test_with_a_certificate_under_a_revoked_root_is_no_neighbour(self) -> None:
        clock, site = FakeClock(), Deployment()
        thief_site = site.twin()
        site.rotate()
        site.revoke(0)
        async with line(site, clock, 1) as (a,):
            thief = Stander(thief_site, clock)
            await thief.start()
            with logged() as lines:
                thief.put(a, None)
                await until(lambda: any(e["event"] == "link.refused" for e in lines))
            assert a.chain.backward is None
            await thief.stop()


class TestRotation:
    @pytest.mark.req("B9")
    async def test_links_are_made_again_when_trust_changes(self) -> None:
        site = Deployment()
        async with line(site, FakeClock(), 3) as standers:
            a, b, c = standers
            await until(lambda: a.follows(b) and b.follows(c))
            old = [a.chain.forward, b.chain.forward]
            site.rotate()
            for stander in standers:
                stander.teach()
                stander.certify()
            await until(
                lambda: (
                    a.follows(b)
                    and b.follows(c)
                    and a.chain.forward is not old[0]
                    and b.chain.forward is not old[1]
                )
            )
            for link in (a.chain.forward, b.chain.forward):
                assert link is not None
                await until(lambda: a.follows(b) and b.follows(c))
            for previous in old:
                assert previous is not None
                await previous.closed()

    @pytest.mark.req("B9")
    async def test_a_ping_under_way_is_answered_on_the_link_that_is_replaced(self) -> None:
        site = Deployment()
        async with line(site, FakeClock(), 2) as (a, b):
            await until(lambda: a.follows(b))
            first = a.chain.forward
            assert first is not None
            b.gate = asyncio.Event()
            ping = asyncio.ensure_future(first.request(Ping(id=9, sender=a.id), hold=False))
            await until(lambda: any(isinstance(m, Ping) for m in b.received))
            a.certify()
            await until(lambda: a.chain.forward is not first and a.follows(b))
            assert first.is_open
            b.gate.set()
            assert isinstance(await ping, Pong)
            assert (await first.closed()).code is CloseCode.SUPERSEDED

    @pytest.mark.req("B9")
    async def test_no_ping_is_lost_over_rotations_and_re_links(self) -> None:
        site, clock = Deployment(), FakeClock()
        async with line(site, clock, 3) as standers:
            a, b, c = standers
            await until(lambda: a.follows(b) and b.follows(c))
            for stander in standers:
                stander.loops.spawn(stander.pings.run(), hold=False)
            for _ in range(3):
                site.rotate()
                for stander in standers:
                    stander.teach()
                    await clock.advance_network(1.0)
                    stander.certify()
                for link in (a.chain.forward, b.chain.backward):
                    if link is not None:
                        link.abort()
                await clock.advance_network(1.0)
                await until(lambda: a.follows(b) and b.follows(c))
            # The last questions are asked again at the next round, over the links that stand.
            for _ in range(100):
                await clock.advance_network(1.0)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await until(lambda: all(s.pings.unanswered == 0 for s in standers))
                        break
            assert all(s.pings.sent > 6 for s in standers)
            assert [s.pings.answered for s in standers] == [s.pings.sent for s in standers]

    async def test_a_new_neighbour_is_told_the_newest_head(self) -> None:
        clock, site = FakeClock(), Deployment()
        async with line(site, clock, 1) as (old,):
            site.rotate()
            new = Stander(site, clock)
            site.certify(new.member.keyring, new.member.kind, root=0)
            await new.start()
            old.put(None, new)
            new.put(old, None)
            await until(lambda: old.member.trust.newest_root == site.root_id())
            assert any(isinstance(m, HeadNotice) for m in old.received)
            await new.stop()
