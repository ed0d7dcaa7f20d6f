"""Following the ledger over links in memory: pieces, forgeries, and what is passed on."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from agents.member.following import UNVERIFIED_INTERVAL, Following, answer_ledger_get
from agents.member.member import Member
from agents.member.trust import EXPECTED_HISTORY, Trust
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.tasks import Tasks
from pki import catchup, heads
from pki.names import Role
from pki.state import TrustState
from protocol.messages import Done, HeadNotice, LedgerEntries, LedgerGet, Message, Refused
from tests.support.channels import Answering, FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.files import MemoryFiles
from tests.support.logs import logged

Change = Callable[[LedgerEntries], LedgerEntries]
LONGEST_SPREAD = 3600.0


class Follower:
    """A component, and the links to those that it hears of a ledger from."""

    def __init__(self, site: Deployment, *, state: TrustState | None = None) -> None:
        self.clock = FakeClock()
        self.files = MemoryFiles()
        self.member: Member = site.member(
            Role.CLIENT, clock=self.clock, files=self.files, state=state
        )
        self.passed_on: list[tuple[Channel | None, HeadNotice]] = []
        self.following = Following(
            self.trust,
            clock=self.clock,
            spawn=Tasks(self.clock, logs.get_logger()).spawn,
            log=logs.get_logger(),
            relay=self.relay,
            longest_spread=lambda: LONGEST_SPREAD,
        )

    @property
    def trust(self) -> Trust:
        return self.member.trust

    async def relay(self, source: Channel | None, notice: HeadNotice) -> None:
        self.passed_on.append((source, notice))

    async def hear(self, link: FakeChannel, head: bytes, spread: float = 0.0) -> None:
        answer = await self.following.notice(link.channel, HeadNotice(head=head, spread=spread))
        assert answer == Done()
        await settle(200)


def source(site: Deployment) -> Answering:
    """Whoever has the whole ledger, and answers like any component."""
    known = site.member(Role.SERVER).trust

    async def answering(_channel: Channel, message: Message) -> Message:
        assert isinstance(message, LedgerGet)
        return answer_ledger_get(known, message)

    return answering


def liar(site: Deployment, change: Change) -> Answering:
    """The same, with every answer changed on its way."""
    honest = source(site)

    async def answering(channel: Channel, message: Message) -> Message:
        answer = await honest(channel, message)
        assert isinstance(answer, LedgerEntries)
        return change(answer)

    return answering


class TestCatchUp:
    @pytest.mark.req("B6")
    async def test_reaches_the_end_from_the_first_entry(self) -> None:
        site = Deployment()
        follower = Follower(site)
        for _ in range(3):
            site.rotate()
        site.revoke(0, 1)
        assert await follower.following.catch_up(FakeChannel(source(site)).channel)
        assert follower.trust.last(site.slot) == site.chain.last
        assert follower.trust.trusted == {site.root_id(2), site.root_id(3)}
        assert follower.trust.head(site.slot) is not None

    @pytest.mark.req("B6")
    async def test_takes_as_many_pieces_as_there_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catchup, "MAX_ANSWER", 4 * 1024)
        site = Deployment()
        follower = Follower(site)
        for _ in range(12):
            site.rotate()
        site.revoke(*range(8))
        link = FakeChannel(source(site))
        assert await follower.following.catch_up(link.channel)
        assert len(link.asked) > 3
        assert follower.trust.last(site.slot) == site.chain.last
        assert follower.trust.revision == 1, "a whole catch-up has one effect"

    async def test_that_brings_nothing_changes_nothing(self) -> None:
        site = Deployment()
        follower = Follower(site)
        link = FakeChannel(source(site))
        assert not await follower.following.catch_up(link.channel)
        assert len(link.asked) == 1
        await settle()
        assert follower.passed_on == []

    async def test_a_source_that_is_behind_takes_nothing_away(self) -> None:
        site = Deployment()
        behind = source(site)
        site.rotate()
        follower = Follower(site)
        assert not await follower.following.catch_up(FakeChannel(behind).channel)
        assert follower.trust.last(site.slot) == site.chain.last

    @pytest.mark.req("B10")
    async def test_a_forged_tail_is_kept_out(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        forged = Deployment()
        forged.rotate()

        def lengthen(answer: LedgerEntries) -> LedgerEntries:
            tail = [*answer.entries, forged.chain.encoded[1]]
            return LedgerEntries(slot=answer.slot, first=answer.first, entries=tail)

        with logged() as lines:
            assert await follower.following.catch_up(FakeChannel(liar(site, lengthen)).channel)
        assert follower.trust.last(site.slot) == site.chain.last
        assert follower.trust.newest_root == site.root_id()
        assert [line["event"] for line in lines] == ["ledger.refused", "ledger.followed"]

    @pytest.mark.req("B10")
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda e: [bytes([*e[0][:-1], e[0][-1] ^ 1]), *e[1:]], id="flipped"),
            pytest.param(lambda e: [e[1], e[0]], id="swapped"),
            pytest.param(lambda e: e[1:], id="left out"),
            pytest.param(lambda e: [e[0][:-1]], id="cut"),
            pytest.param(lambda e: [b""], id="empty"),
        ],
    )
    async def test_what_was_altered_on_its_way_is_kept_out(
        self, change: Callable[[list[bytes]], list[bytes]]
    ) -> None:
        site = Deployment()
        follower = Follower(site)
        before = follower.trust.state
        site.rotate()
        site.rotate()

        def alter(answer: LedgerEntries) -> LedgerEntries:
            return LedgerEntries(
                slot=answer.slot, first=answer.first, entries=change(list(answer.entries))
            )

        await follower.following.catch_up(FakeChannel(liar(site, alter)).channel)
        assert follower.trust.state == before
        await follower.following.catch_up(FakeChannel(source(site)).channel)
        assert follower.trust.last(site.slot) == site.chain.last

    @pytest.mark.req("B10", "E5")
    async def test_what_is_refused_says_whose_it_was(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        peer = site.peer(Role.SERVER)

        def elsewhere(answer: LedgerEntries) -> LedgerEntries:
            return LedgerEntries(slot=bytes(32), first=answer.first, entries=answer.entries)

        def cut(answer: LedgerEntries) -> LedgerEntries:
            return LedgerEntries(
                slot=answer.slot, first=answer.first, entries=[answer.entries[0][:-1]]
            )

        for change in (elsewhere, cut):
            link = FakeChannel(liar(site, change), peer=peer)
            with logged() as lines:
                assert not await follower.following.catch_up(link.channel)
            (line,) = lines
            assert line["event"] == "ledger.refused"
            assert line["link"] == link.id
            assert line["fingerprint"] == peer.leaf.fingerprint
            assert line["source"] == link.name
            assert line["expected"] == EXPECTED_HISTORY
            assert line["reason"]
            assert line["remedy"]

    async def test_a_source_that_never_ends_is_given_up(self) -> None:
        site = Deployment()
        follower = Follower(site)
        before = follower.trust.state

        async def endless(_channel: Channel, message: Message) -> Message:
            return LedgerEntries(slot=site.slot, first=1, entries=[], more=True)

        with logged() as lines:
            assert not await follower.following.catch_up(FakeChannel(endless).channel)
        assert follower.trust.state == before
        assert [line["event"] for line in lines] == ["ledger.refused"]

    async def test_takes_a_minute_at_the_most(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        honest = source(site)

        async def slow(channel: Channel, message: Message) -> Message:
            follower.clock.move_network(61.0)
            answer = await honest(channel, message)
            assert isinstance(answer, LedgerEntries)
            return LedgerEntries(
                slot=answer.slot, first=answer.first, entries=answer.entries, more=True
            )

        link = FakeChannel(slow)
        with pytest.raises(UnavailableError, match="took over 60 s"):
            await follower.following.catch_up(link.channel)
        assert len(link.asked) == 1
        assert follower.trust.last(site.slot).n == 0

    async def test_the_minute_is_for_every_slot_together(self) -> None:
        one, two = Deployment(), Deployment()
        follower = Follower(one, state=TrustState((*one.state().slots, *two.state().slots)))

        async def slow(_channel: Channel, message: Message) -> Message:
            assert isinstance(message, LedgerGet)
            follower.clock.move_network(61.0)
            return answer_ledger_get(follower.trust, message)

        link = FakeChannel(slow)
        with pytest.raises(UnavailableError, match="took over 60 s"):
            await follower.following.catch_up(link.channel)
        assert len(link.asked) == 1

    async def test_a_source_that_refuses_may_say_it_later(self) -> None:
        async def refuse(_channel: Channel, _message: Message) -> Message:
            return Refused(reason="busy")

        with pytest.raises(UnavailableError, match="busy"):
            await Follower(Deployment()).following.catch_up(FakeChannel(refuse).channel)

    async def test_a_link_that_breaks_leaves_what_was_known(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        link.lose()
        with pytest.raises(UnavailableError):
            await follower.following.catch_up(link.channel)
        assert follower.trust.last(site.slot).n == 0

    async def test_a_head_that_was_found_on_the_way_is_passed_on(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        await follower.following.catch_up(link.channel)
        await settle()
        assert follower.passed_on == [(link.channel, HeadNotice(head=site.head))]


class TestNotice:
    async def test_one_that_counts_is_passed_on_but_to_where_it_came_from(self) -> None:
        site = Deployment()
        follower = Follower(site)
        link = FakeChannel(source(site))
        site.deny()
        await follower.hear(link, site.head, spread=9.0)
        assert follower.passed_on == [(link.channel, HeadNotice(head=site.head, spread=9.0))]
        assert link.asked == []

    async def test_one_that_is_known_goes_no_further(self) -> None:
        site = Deployment()
        follower = Follower(site)
        await follower.hear(FakeChannel(source(site)), site.head)
        assert follower.passed_on == []

    @pytest.mark.req("B6")
    async def test_one_beyond_ours_is_caught_up_with_and_passed_on_once(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        await follower.hear(link, site.head, spread=30.0)
        assert follower.trust.newest_root == site.root_id()
        assert follower.following.spread == 30.0
        assert follower.passed_on == [(link.channel, HeadNotice(head=site.head, spread=30.0))]

    @pytest.mark.req("B13")
    async def test_no_spread_is_believed_for_longer_than_ours(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        await follower.hear(link, site.head, spread=1e9)
        assert follower.trust.newest_root == site.root_id()
        assert follower.following.spread == LONGEST_SPREAD
        assert follower.passed_on == [
            (link.channel, HeadNotice(head=site.head, spread=LONGEST_SPREAD))
        ]

    @pytest.mark.req("B13")
    async def test_a_neighbour_with_a_forged_head_delays_no_renewal(self) -> None:
        site, thief = Deployment(), Deployment()
        follower = Follower(site)
        thief.rotate()
        site.rotate()
        await follower.hear(FakeChannel(source(site)), self.beyond(site, thief), spread=1e9)
        assert follower.trust.newest_root == site.root_id(), "what it pulled was honest"
        assert follower.following.spread == 0.0

    @pytest.mark.req("B13")
    async def test_the_spread_is_known_when_the_new_root_is(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        seen: list[float] = []

        async def renewing() -> None:
            await follower.trust.changed(follower.trust.revision)
            seen.append(follower.following.spread)

        waiting = asyncio.ensure_future(renewing())
        await settle()
        await follower.hear(FakeChannel(source(site)), site.head, spread=30.0)
        await waiting
        assert seen == [30.0]

    @pytest.mark.req("B13")
    async def test_the_spread_of_one_rotation_is_not_that_of_the_next(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        await follower.hear(FakeChannel(source(site)), site.head, spread=30.0)
        site.rotate()
        await follower.following.catch_up(FakeChannel(source(site)).channel)
        assert follower.following.spread == 0.0

    @pytest.mark.req("B6")
    async def test_on_a_link_that_ends_after_it_the_pull_is_waited_for(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        await follower.following.hear(link.channel, HeadNotice(head=site.head, spread=30.0))
        assert follower.trust.newest_root == site.root_id()
        assert follower.following.spread == 30.0

    async def test_is_answered_before_it_is_caught_up_with(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()

        async def never(_channel: Channel, _message: Message) -> Message:
            await asyncio.Event().wait()
            return Done()

        link = FakeChannel(never)
        answer = await follower.following.notice(link.channel, HeadNotice(head=site.head))
        assert answer == Done()
        assert follower.clock.holds == 1, "the clock waits for what follows"

    @pytest.mark.req("B10")
    async def test_a_strangers_head_is_not_believed(self) -> None:
        site, thief = Deployment(), Deployment()
        follower = Follower(site)
        before = follower.trust.state
        link = FakeChannel(source(site))
        await follower.hear(link, thief.head)
        await follower.hear(link, site.make_head(thief.newest_key))
        assert follower.trust.state == before
        assert follower.passed_on == []
        assert link.asked == []

    async def test_a_forged_one_beyond_ours_costs_one_pull_a_minute_and_link(self) -> None:
        site, thief = Deployment(), Deployment()
        follower = Follower(site)
        thief.rotate()
        forged = [self.beyond(site, thief) for _ in range(4)]
        link, other = FakeChannel(source(site)), FakeChannel(source(site))
        await follower.hear(link, forged[0])
        await follower.hear(link, forged[1])
        assert len(link.asked) == 1
        await follower.hear(other, forged[1])
        assert len(other.asked) == 1
        follower.clock.move_network(UNVERIFIED_INTERVAL - 1)
        await follower.hear(link, forged[2])
        assert len(link.asked) == 1
        follower.clock.move_network(1)
        await follower.hear(link, forged[3])
        assert len(link.asked) == 2
        assert follower.passed_on == []
        assert follower.trust.last(site.slot).n == 0

    @pytest.mark.req("C8")
    async def test_what_a_full_disk_did_not_keep_is_asked_for_again(self) -> None:
        site = Deployment()
        follower = Follower(site)
        before = follower.trust.state
        site.rotate()
        link = FakeChannel(source(site))
        follower.files.full = True
        with logged() as lines:
            await follower.hear(link, site.head)
            await follower.clock.advance_network(UNVERIFIED_INTERVAL)
        (line,) = [line for line in lines if line["event"] == "ledger.unwritable"]
        assert "no space left" in str(line["reason"])
        assert line["remedy"]
        assert follower.trust.state == before
        assert len(link.asked) == 2
        follower.files.full = False
        await follower.clock.advance_network(UNVERIFIED_INTERVAL)
        assert follower.trust.last(site.slot) == site.chain.last

    @pytest.mark.parametrize("refused", [True, False], ids=["refused", "unanswered"])
    async def test_what_could_not_be_asked_for_is_asked_for_again(self, *, refused: bool) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        honest, busy = source(site), True

        async def answering(channel: Channel, message: Message) -> Message | None:
            if not busy:
                return await honest(channel, message)
            if refused:
                return Refused(reason="busy", text="all at work wait for you", retry_after=1.0)
            raise UnavailableError("no answer to LEDGER_GET")

        link = FakeChannel(answering)
        with logged() as lines:
            await follower.hear(link, site.head)
            assert follower.clock.holds == 0
            await follower.clock.advance_network(UNVERIFIED_INTERVAL)
            assert len(link.asked) == 2
            # Whoever announces it again meanwhile has it asked for no more often.
            await follower.hear(link, site.head)
            assert len(link.asked) == 2
            busy = False
            await follower.clock.advance_network(UNVERIFIED_INTERVAL)
        assert [line["event"] for line in lines].count("ledger.unreachable") == 1
        assert follower.trust.last(site.slot) == site.chain.last
        assert [head for _, head in follower.passed_on] == [HeadNotice(head=site.head)]
        await follower.clock.advance_network(3600)
        assert len(link.asked) == 3

    async def test_a_fault_of_ours_is_no_reason_never_to_ask_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))

        async def broken(*_args: object) -> bool:
            raise RuntimeError("a fault of ours")

        with monkeypatch.context() as patch:
            patch.setattr(follower.following, "catch_up", broken)
            await follower.hear(link, site.head)
        follower.clock.move_network(UNVERIFIED_INTERVAL)
        await follower.hear(link, site.head)
        assert follower.trust.last(site.slot) == site.chain.last

    async def test_a_link_that_has_ended_is_asked_no_more(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()

        async def refuse(_channel: Channel, _message: Message) -> Message:
            return Refused(reason="busy")

        link = FakeChannel(refuse)
        await follower.hear(link, site.head)
        link.lose()
        await follower.clock.advance_network(3600)
        assert len(link.asked) == 1
        assert follower.clock.due_network is None

    async def test_a_source_that_breaks_off_is_a_line(self) -> None:
        site = Deployment()
        follower = Follower(site)
        site.rotate()
        link = FakeChannel(source(site))
        link.lose()
        with logged() as lines:
            await follower.hear(link, site.head)
        assert [line["event"] for line in lines] == ["ledger.unreachable"]
        assert follower.passed_on == []

    def beyond(self, site: Deployment, thief: Deployment) -> bytes:
        return heads.make_head(
            thief.newest_key,
            slot=site.slot,
            n=thief.chain.last.n,
            entry_id=thief.chain.last.id,
            time=int(thief.now.timestamp()),
        )


class TestChainOfMembers:
    """A HEAD goes down a line of neighbours, each of which catches up from the one before."""

    async def test_reaches_the_last_of_a_line(self) -> None:
        site = Deployment()
        line = [Follower(site) for _ in range(5)]
        site.rotate()
        site.revoke(0)
        told = 0
        await line[0].following.catch_up(FakeChannel(source(site)).channel)
        for before, after in itertools.pairwise(line):

            async def answering(
                _channel: Channel, message: Message, known: Trust = before.trust
            ) -> Message:
                assert isinstance(message, LedgerGet)
                return answer_ledger_get(known, message)

            await settle()
            ((_, notice),) = before.passed_on
            await after.hear(FakeChannel(answering), notice.head, notice.spread)
            told += 1
        assert told == 4
        assert {follower.trust.newest_root for follower in line} == {site.root_id()}
        assert all(len(follower.passed_on) <= 1 for follower in line)


def test_an_unknown_slot_is_answered_with_nothing() -> None:
    site, other = Deployment(), Deployment()
    answer = answer_ledger_get(
        site.member(Role.SERVER).trust, LedgerGet(slot=other.slot, n=0, entry_id=bytes(32))
    )
    assert answer.entries == []
    assert answer.head is None
