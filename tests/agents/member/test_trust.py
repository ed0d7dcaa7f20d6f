"""What a member trusts: persisted before it acts, counted where it matters (rules 12, 17, 18)."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.trust import SUPERSEDED, Trust
from agents.runtime import logs
from agents.runtime.errors import StateError
from agents.runtime.files import TwoGenerations
from pki import bundle as bundles
from pki import keys, state
from pki.certificates import Kind
from pki.names import Role
from pki.peers import Expectation
from pki.trust import Verdict
from protocol.codes import CloseCode
from protocol.errors import Refusal
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.logs import logged

PATH = Path("/state/ledger")
YEAR = timedelta(days=365)


class Case:
    """A component that has followed a deployment as far as it is now."""

    def __init__(self) -> None:
        self.site = Deployment()
        self.files = MemoryFiles()
        self.clock = FakeClock()
        self.trust = Trust(
            self.site.state(),
            path=PATH,
            files=self.files,
            clock=self.clock,
            log=logs.get_logger(),
        )
        self.trust.persist()

    def loaded(self) -> Trust:
        """What the next start would know."""
        again = Trust.load(PATH, files=self.files, clock=self.clock, log=logs.get_logger())
        assert again is not None
        return again

    def follow(self) -> bool:
        """Hear of every entry."""
        return self.trust.entries(self.site.slot, 0, self.site.chain.encoded, source="test")

    def hear(self) -> Verdict:
        """Hear the newest HEAD."""
        return self.trust.take_head(self.site.head, source="test")


class TestPersistence:
    def test_a_first_start_finds_nothing(self) -> None:
        files = MemoryFiles()
        assert not Trust.exists(PATH, files)
        assert Trust.load(PATH, files=files, clock=FakeClock(), log=logs.get_logger()) is None

    def test_the_next_start_knows_what_this_one_knew(self) -> None:
        case = Case()
        case.site.rotate()
        case.site.rotate()
        case.site.revoke(0)
        case.follow()
        case.site.deny(case.site.root_id(1))
        case.hear()
        assert case.loaded().state == case.trust.state
        assert case.loaded().denied == {case.site.root_id(1)}

    @pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.TORN])
    def test_what_is_not_on_disk_is_not_believed(self, failure: Failure) -> None:
        case = Case()
        before, roots = case.trust.state, case.trust.roots
        case.site.rotate()
        case.files.fail(1, failure)
        with pytest.raises(StateError):
            case.follow()
        assert case.trust.state is before
        assert case.trust.roots == roots
        assert case.trust.revision == 0
        assert case.follow()
        assert case.trust.revision == 1

    @pytest.mark.parametrize("failure", list(Failure))
    @pytest.mark.req("C8")
    def test_a_crash_leaves_the_state_before_or_after(self, failure: Failure) -> None:
        case = Case()
        before = case.trust.state
        case.site.rotate()
        case.files.fail(1, failure, crash=True)
        with pytest.raises(Crash):
            case.follow()
        after = state.encode_state(case.loaded().state)
        case.follow()
        assert after in {state.encode_state(before), state.encode_state(case.trust.state)}

    async def test_nobody_hears_of_a_change_before_it_is_on_disk(self) -> None:
        case = Case()
        seen: list[bytes] = []

        async def watch() -> None:
            await case.trust.changed(0)
            seen.append(case.loaded().newest_root)

        watching = asyncio.ensure_future(watch())
        await settle()
        case.site.rotate()
        case.follow()
        await watching
        assert seen == [case.site.root_id()]

    def test_what_changes_nothing_writes_nothing(self) -> None:
        case = Case()
        changes = case.files.changes
        assert not case.follow()
        assert case.hear() is Verdict.SAME
        assert case.files.changes == changes

    @pytest.mark.req("C8")
    def test_a_damaged_generation_is_named_and_the_other_one_used(self) -> None:
        case = Case()
        before = case.trust.state
        case.site.rotate()
        case.follow()
        newest = PATH.with_name("ledger.0")
        case.files.content[newest] = case.files.content[newest][:-1]
        with logged() as lines:
            assert case.loaded().state == before
        (line,) = [line for line in lines if line["event"] == "ledger.torn"]
        assert line["source"] == str(newest)
        assert line["remedy"]

    def test_two_damaged_generations_are_named(self) -> None:
        case = Case()
        case.site.rotate()
        case.follow()
        for path, data in list(case.files.content.items()):
            case.files.content[path] = data[: len(data) // 2]
        with pytest.raises(StateError):
            case.loaded()

    def test_a_state_that_was_never_one_is_refused_with_a_way_out(self) -> None:
        case = Case()
        encoded = bytearray(state.encode_state(case.trust.state))
        encoded[-1] ^= 1
        for _ in range(2):
            TwoGenerations(PATH, case.files).write(bytes(encoded))
        with pytest.raises(StateError, match="damaged") as caught:
            case.loaded()
        assert "init bundle" in caught.value.hint


class TestRevision:
    """Rule 17: links are made anew after a change of roots or denied keys, and only then."""

    def test_counts_a_new_root(self) -> None:
        case = Case()
        case.site.rotate()
        assert case.follow()
        assert case.trust.revision == 1

    def test_counts_a_revoked_root(self) -> None:
        case = Case()
        case.site.rotate()
        case.follow()
        case.site.revoke(0)
        case.follow()
        assert case.trust.revision == 2
        assert case.trust.trusted == {case.site.root_id()}

    def test_counts_a_denied_key(self) -> None:
        case = Case()
        case.site.deny(keys.key_id(case.site.keys[5].public_key()))
        assert case.hear() is Verdict.COUNTED
        assert case.trust.revision == 1

    def test_counts_a_whole_catch_up_once(self) -> None:
        case = Case()
        for _ in range(3):
            case.site.rotate()
        case.site.revoke(0, 1)
        case.follow()
        assert case.trust.revision == 1

    def test_does_not_count_a_newer_head_of_the_same_end(self) -> None:
        case = Case()
        case.site.deny()
        assert case.hear() is Verdict.COUNTED
        assert case.trust.revision == 0

    def test_does_not_count_the_evidence_of_a_fork(self) -> None:
        case = Case()
        other = case.site.twin()
        case.site.rotate()
        other.rotate()
        case.follow()
        revision, root = case.trust.revision, case.trust.newest_root
        with logged() as lines:
            changed = case.trust.entries(
                other.slot, 0, other.chain.encoded, source="client/impostor"
            )
        assert not changed
        assert (case.trust.revision, case.trust.newest_root) == (revision, root)
        assert [line["event"] for line in lines] == ["ledger.forked"]
        assert lines[0]["source"] == "client/impostor"

    async def test_wakes_whoever_waits_for_it(self) -> None:
        case = Case()
        waiting = asyncio.ensure_future(case.trust.changed(0))
        await settle()
        assert not waiting.done()
        case.site.deny()
        case.hear()
        await settle()
        assert not waiting.done()
        case.site.rotate()
        case.follow()
        assert await waiting == 1
        assert await case.trust.changed(0) == 1


class TestReports:
    @pytest.mark.req("B10")
    def test_a_chain_that_supersedes_ours_is_reported_with_its_reason(self) -> None:
        case = Case()
        other = case.site.twin()
        case.site.rotate()
        case.follow()
        other.rotate()
        other.rotate()
        with logged() as lines:
            assert case.trust.entries(other.slot, 0, other.chain.encoded, source="server/honest")
        (forked,) = [line for line in lines if line["event"] == "ledger.forked"]
        assert forked["reason"] == SUPERSEDED

    @pytest.mark.req("B10")
    def test_a_fork_is_evidence_a_line_and_nothing_else(self) -> None:
        case = Case()
        other = case.site.twin()
        case.site.rotate()
        other.rotate()
        case.follow()
        case.hear()
        roots = case.trust.roots
        with logged() as lines:
            verdict = case.trust.take_head(other.head, source="server/liar")
        assert verdict is Verdict.FORK
        assert case.trust.roots == roots
        assert [(line["event"], line["level"]) for line in lines] == [("ledger.forked", "error")]
        kept = case.loaded().state.first.forks
        assert [fork.n for fork in kept] == [1]

    @pytest.mark.req("B10", "E5")
    @pytest.mark.parametrize("what", ["noise", "cut", "flipped", "nothing"])
    def test_what_is_no_head_is_a_line_and_nothing_else(self, what: str) -> None:
        case = Case()
        before, head = case.trust.state, case.site.head
        data = {
            "noise": bytes(range(256)),
            "cut": head[:-1],
            "flipped": bytes([*head[:-1], head[-1] ^ 1]),
            "nothing": b"",
        }[what]
        log = logs.get_logger().bind(link="7", fingerprint="f")
        with logged() as lines:
            assert case.trust.take_head(data, source="server/liar", log=log) is Verdict.IGNORED
        assert case.trust.state == before
        (line,) = lines
        assert (line["event"], line["level"]) == ("ledger.refused", "warning")
        assert (line["link"], line["fingerprint"]) == ("7", "f")
        assert (line["source"], line["expected"]) == ("server/liar", "a HEAD")
        assert line["reason"]
        assert line["remedy"]

    @pytest.mark.req("B10")
    def test_a_head_that_does_not_count_is_no_line(self) -> None:
        """It is old, or of a branch that is not ours, and whoever tells it may be honest."""
        case = Case()
        old = case.site.head
        case.site.rotate()
        case.follow()
        case.hear()
        with logged() as lines:
            for head in (old, Deployment().head):
                assert case.trust.take_head(head, source="client/behind") is Verdict.IGNORED
        assert lines == []

    @pytest.mark.req("B10", "B11")
    def test_a_forged_entry_is_a_line_and_nothing_else(self) -> None:
        case, thief = Case(), Deployment()
        before = case.trust.state
        thief.rotate()
        tail = [*case.site.chain.encoded, thief.chain.encoded[1]]
        with logged() as lines:
            assert not case.trust.entries(case.site.slot, 0, tail, source="client/liar")
        assert case.trust.state == before
        assert [line["event"] for line in lines] == ["ledger.refused"]

    def test_what_was_followed_is_a_line(self) -> None:
        case = Case()
        case.site.rotate()
        with logged() as lines:
            case.follow()
        assert [line["event"] for line in lines] == ["ledger.followed"]
        assert lines[0]["newest_root"] == case.site.root_id().hex()


class TestBundle:
    def test_a_newer_bundle_is_one_more_source(self) -> None:
        case = Case()
        case.site.rotate()
        assert case.trust.bundle(bundles.open_bundle(case.site.bundle()), source="init.dat")
        assert case.trust.newest_root == case.site.root_id()
        assert case.loaded().newest_root == case.site.root_id()

    def test_an_older_bundle_takes_nothing_away(self) -> None:
        case = Case()
        old = bundles.open_bundle(case.site.bundle())
        case.site.rotate()
        case.site.revoke(0)
        case.follow()
        case.trust.bundle(old, source="init.dat")
        assert case.trust.trusted == {case.site.root_id()}


class TestVerifier:
    """The question a link asks: each answer with the code that its peer is told."""

    def refusal(self, case: Case, chain: tuple[bytes, ...], role: Role = Role.HUB) -> CloseCode:
        verify = case.trust.verifier(
            lambda: Expectation(roles=frozenset({role}), deployment=case.trust.deployment)
        )
        with pytest.raises(Refusal) as caught:
            verify(chain)
        assert caught.value.time == int(case.clock.now().timestamp())
        return caught.value.code

    def chain(self, case: Case) -> tuple[bytes, ...]:
        return case.site.issue(keys.generate(), Kind.HUB_TLS, bytes(16))

    def test_takes_who_is_expected(self) -> None:
        case = Case()
        verify = case.trust.verifier(
            lambda: Expectation(roles=frozenset({Role.HUB}), deployment=case.trust.deployment)
        )
        assert verify(self.chain(case)).name.role is Role.HUB

    def test_expired(self) -> None:
        case = Case()
        chain = self.chain(case)
        case.clock.jump(YEAR)
        assert self.refusal(case, chain) is CloseCode.EXPIRED

    def test_not_yet_valid(self) -> None:
        case = Case()
        chain = self.chain(case)
        case.clock.jump(-YEAR)
        assert self.refusal(case, chain) is CloseCode.CLOCK

    @pytest.mark.req("B4")
    def test_under_a_revoked_root(self) -> None:
        case = Case()
        chain = self.chain(case)
        case.site.rotate()
        case.site.revoke(0)
        case.follow()
        assert self.refusal(case, chain) is CloseCode.REVOKED

    @pytest.mark.req("I2")
    def test_of_a_denied_key(self) -> None:
        case = Case()
        key = keys.generate()
        chain = case.site.issue(key, Kind.HUB_TLS, bytes(16))
        case.site.deny(keys.key_id(key.public_key()))
        case.hear()
        assert self.refusal(case, chain) is CloseCode.REVOKED

    @pytest.mark.req("A12")
    def test_of_another_role(self) -> None:
        case = Case()
        assert self.refusal(case, self.chain(case), Role.SERVER) is CloseCode.WRONG_ROLE

    def test_no_chain_at_all(self) -> None:
        assert self.refusal(Case(), ()) is CloseCode.UNTRUSTED

    def test_not_a_certificate(self) -> None:
        assert self.refusal(Case(), (b"chain",)) is CloseCode.PROTOCOL_ERROR

    def test_follows_trust_after_it_was_made(self) -> None:
        case = Case()
        verify = case.trust.verifier(
            lambda: Expectation(roles=frozenset({Role.HUB}), deployment=case.trust.deployment)
        )
        chain = self.chain(case)
        verify(chain)
        case.site.rotate()
        case.site.revoke(0)
        case.follow()
        with pytest.raises(Refusal):
            verify(chain)
