"""Rules 7, 9, 12, 16 and 17: which chain and which head are believed, and what follows.

Where a test takes a mutant, the attack fails with the rule and succeeds with that rule alone
taken away or weakened.
"""

import pytest

from pki import entries, succession, trust
from pki.ledger import Chain, extend
from pki.state import MAX_EVIDENCE
from pki.succession import Succession
from pki.trust import TrustState, Verdict, accept_entries, accept_head, from_chain
from tests.pki import lineage
from tests.pki.lineage import ALIEN, NOW, forge_rotate, honest, kid, kids
from tests.pki.mutants import without_head_check, without_succession


def heard(state: TrustState, chain: Chain) -> TrustState:
    """The state after hearing a whole chain."""
    return accept_entries(state, chain.slot, 0, chain.encoded).state


def roots_of(state: TrustState) -> set[bytes]:
    return set(trust.trusted(state))


def forged(chain: Chain, *rotations: tuple[int, list[int], int]) -> Chain:
    """A chain with more rotations (new root, signers, one more), which must all be valid."""
    for number, signers, more in rotations:
        chain, problem = extend(chain, [forge_rotate(chain, number, signers, more=more)])
        assert problem is None
    return chain


# Rule 7, extend.


@pytest.mark.req("B10")
def test_a_longer_chain_that_begins_with_ours_is_followed() -> None:
    far = honest(5, revoked=[0, 1])
    outcome = accept_entries(from_chain(honest(2)), far.slot, 2, far.encoded[2:])
    assert (outcome.changed, outcome.problem, outcome.evidence) == (True, None, None)
    assert outcome.succession is Succession.EXTENDS
    assert outcome.state.chains == (far,)
    assert trust.newest_root(outcome.state) == kid(4)
    assert roots_of(outcome.state) == set(kids([2, 3, 4]))
    assert trust.revoked(outcome.state) == set(kids([0, 1]))


@pytest.mark.parametrize("first", range(5))
def test_entries_that_overlap_ours_are_heard(first: int) -> None:
    far = honest(6)
    outcome = accept_entries(from_chain(honest(4)), far.slot, first, far.encoded[first:])
    assert outcome.state.chains == (far,)


@pytest.mark.parametrize(("first", "shown"), [(-1, 1), (3, 2), (10**9, 2)])
def test_entries_that_do_not_touch_ours_are_kept_out(first: int, shown: int) -> None:
    """Although they follow, at another place than they are said to be at."""
    far = honest(6)
    outcome = accept_entries(from_chain(honest(2)), far.slot, first, far.encoded[shown:])
    assert (outcome.changed, outcome.state) == (False, from_chain(honest(2)))
    assert outcome.problem is not None


def test_what_we_have_or_less_changes_nothing() -> None:
    state = from_chain(honest(4))
    for chain in (honest(4), honest(3), lineage.genesis()):
        outcome = accept_entries(state, chain.slot, 0, chain.encoded)
        assert (outcome.changed, outcome.problem, outcome.state) == (False, None, state)
    assert accept_entries(state, honest(4).slot, 4, []).state is state


@pytest.mark.req("B10")
def test_what_is_valid_before_an_invalid_entry_is_followed_and_the_rest_reported() -> None:
    far = honest(5)
    outcome = accept_entries(
        from_chain(honest(2)), far.slot, 2, [*far.encoded[2:4], b"noise", far.encoded[4]]
    )
    assert outcome.state.chains == (honest(4),)
    assert outcome.problem is not None
    assert outcome.problem.startswith("entry 4: ")


def test_an_unknown_slot_is_not_heard() -> None:
    other = lineage.genesis(b"another one, 16.")
    state = from_chain(honest(2))
    assert accept_entries(state, other.slot, 0, other.encoded).problem == "unknown slot"
    mislabelled = accept_entries(state, state.first.chain.slot, 0, other.encoded)
    assert (mislabelled.changed, mislabelled.state) == (False, state)
    assert mislabelled.succession is Succession.FOREIGN


# Rules 7 to 9, keep: length decides nothing.


def _junk() -> tuple[TrustState, Chain]:
    """We stand at root 3; the thief has root 2, old and not revoked, and writes a longer branch."""
    junk = lineage.revoke(lineage.revoke(honest(3), 0), 1)
    ours = honest(4)
    assert len(junk.entries) > len(ours.entries)
    return from_chain(ours), junk


@pytest.mark.req("B10", "B11")
def test_an_old_root_s_longer_junk_branch_is_kept_out() -> None:
    state, junk = _junk()
    outcome = accept_entries(state, junk.slot, 0, junk.encoded)
    assert not outcome.changed
    assert outcome.state.chains == state.chains
    assert outcome.succession is Succession.FORKS
    assert trust.effect(outcome.state) == trust.effect(state)


@pytest.mark.req("B10")
def test_a_branch_that_is_kept_out_is_evidence() -> None:
    state, junk = _junk()
    outcome = accept_entries(state, junk.slot, 0, junk.encoded)
    assert outcome.evidence is not None
    assert outcome.evidence.n == 3
    assert outcome.evidence.ours == state.first.chain.encoded[3]
    assert outcome.evidence.theirs == junk.encoded[3]
    assert outcome.state.first.forks == (outcome.evidence,)
    assert accept_entries(outcome.state, junk.slot, 0, junk.encoded).state == outcome.state


def test_a_mutant_that_follows_the_longest_chain_is_misled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, junk = _junk()
    monkeypatch.setitem(
        succession.RULES,
        Succession.EXTENDS,
        lambda ours, theirs: len(theirs.entries) > len(ours.entries),
    )
    assert trust.newest_root(heard(state, junk)) == kid(2)


@pytest.mark.req("B11")
@pytest.mark.parametrize("stolen", range(1, 8))
def test_all_revoked_roots_fail_against_an_up_to_date_component(stolen: int) -> None:
    """Whatever branch they write ends in roots of the past, or is not valid."""
    ours = honest(9, revoked=range(8))
    state = from_chain(ours)
    branch = honest(stolen)
    for number in range(stolen, 8):
        branch = forged(branch, (number, [number - 1, number], ALIEN + number))
    outcome = accept_entries(state, ours.slot, 0, branch.encoded)
    assert not outcome.changed
    assert trust.effect(outcome.state) == trust.effect(state)


# Rule 9, rotate supersedes: a misled component heals.


def _sleeper() -> tuple[TrustState, Chain, Chain]:
    """A client that knows root 0 only, a tail forged by roots 0 and 1, and the honest chain."""
    sleeper = from_chain(lineage.genesis())
    tail = forged(lineage.genesis(), (1, [0, 1], ALIEN))
    return sleeper, tail, honest(3, revoked=[0, 1])


@pytest.mark.req("B10", "B11")
def test_a_forged_tail_misleads_until_the_honest_chain_is_heard() -> None:
    sleeper, tail, truth = _sleeper()
    misled = heard(sleeper, tail)
    assert misled.first.chain.state.next[-1] == kid(ALIEN)
    assert roots_of(misled) == set(kids([0, 1]))
    outcome = accept_entries(misled, truth.slot, 0, truth.encoded)
    assert outcome.succession is Succession.SUPERSEDES
    assert outcome.state.chains == (truth,)
    assert roots_of(outcome.state) == {kid(2)}
    assert outcome.evidence is not None


@pytest.mark.req("B11")
def test_a_forged_tail_does_not_come_back() -> None:
    sleeper, tail, truth = _sleeper()
    healed = heard(heard(sleeper, tail), truth)
    assert heard(healed, tail).chains == (truth,)
    # Nor does any other branch of the same two keys.
    another = forged(lineage.genesis(), (1, [0, 1], ALIEN + 1))
    assert heard(healed, lineage.revoke(another, 0)).chains == (truth,)


def test_without_rule_9_a_forged_tail_wedges_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper, tail, truth = _sleeper()
    without_succession(monkeypatch, Succession.SUPERSEDES)
    wedged = heard(heard(sleeper, tail), truth)
    assert wedged.chains == (tail,)
    assert kid(0) in roots_of(wedged)


def test_a_supersession_forgets_the_head_of_the_branch_that_fell() -> None:
    sleeper, tail, truth = _sleeper()
    lie = lineage.head(tail, 1, time=2**62, denied=[kid(50)])
    misled = accept_head(heard(sleeper, tail), lie, NOW).state
    assert trust.denied(misled) == {kid(50)}
    healed = heard(misled, truth)
    assert trust.denied(healed) == frozenset()
    assert accept_head(healed, lineage.head(truth, 2), NOW).verdict is Verdict.COUNTED


def test_a_supersession_keeps_the_evidence_and_adds_its_own() -> None:
    ours, truth = from_chain(honest(2, revoked=[0])), honest(3)
    fork = lineage.head(honest(2), 1, n=2, entry_id=bytes(32))
    known = accept_head(ours, fork, NOW).state
    assert len(known.first.forks) == 1
    outcome = accept_entries(known, truth.slot, 0, truth.encoded)
    assert outcome.succession is Succession.SUPERSEDES
    assert outcome.evidence is not None
    assert outcome.state.first.forks == (*known.first.forks, outcome.evidence)


@pytest.mark.req("B11")
def test_old_roots_and_the_next_one_without_the_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """D + 1 old roots can bring in the next key at a place of theirs, and still do not win."""
    monkeypatch.setattr(entries, "DEPTH", 3)
    lineage.genesis.cache_clear()
    try:
        ours = honest(6)
        assert ours.state.next[0] == kid(6)
        thief = lineage.genesis()
        thief = forged(thief, (1, [0, 1], 6), (2, [1, 2], 30), (3, [2, 3], 31), (6, [3, 6], 32))
        assert not accept_entries(from_chain(ours), ours.slot, 0, thief.encoded).changed
        # Not "all of ours, then our next[0]", but only the latter:
        monkeypatch.setitem(
            succession.RULES,
            Succession.SUPERSEDES,
            lambda ours, theirs: ours.state.next[0] in theirs.state.key_ids,
        )
        assert heard(from_chain(ours), thief).chains == (thief,)
    finally:
        lineage.genesis.cache_clear()


@pytest.mark.req("B11")
def test_the_current_root_and_those_before_it_without_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D + 1 roots in a row, the current one last, write all roots of ours, and then an alien."""
    monkeypatch.setattr(entries, "DEPTH", 3)
    lineage.genesis.cache_clear()
    try:
        ours = honest(5)
        thief = forged(honest(2), (2, [1, 2], ALIEN), (3, [2, 3], 30), (4, [3, 4], 31))
        thief = forged(thief, (ALIEN, [4, ALIEN], 32))
        assert thief.state.key_ids[:5] == ours.state.key_ids
        outcome = accept_entries(from_chain(ours), ours.slot, 0, thief.encoded)
        assert (outcome.changed, outcome.succession) == (False, Succession.FORKS)
        # Not "all of ours, then our next[0]", but all of ours and whatever is next:
        monkeypatch.setitem(
            succession.RULES,
            Succession.SUPERSEDES,
            lambda ours, theirs: theirs.state.key_ids[:5] == ours.state.key_ids,
        )
        assert heard(from_chain(ours), thief).chains == (thief,)
    finally:
        lineage.genesis.cache_clear()


@pytest.mark.req("B11")
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_theorem_at_its_boundary(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """D keys in a row leave honest roots only, and heal; D + 1 bring in an alien for good."""
    monkeypatch.setattr(entries, "DEPTH", depth)
    lineage.genesis.cache_clear()
    try:
        truth = honest(depth + 2, revoked=range(depth + 1))
        sleeper = from_chain(lineage.genesis())
        steps = [(n, [n - 1, n], ALIEN + n) for n in range(1, depth)]
        below = forged(lineage.genesis(), *steps)
        misled = heard(sleeper, below)
        assert misled.first.chain.state.key_ids == tuple(kids(range(depth)))
        # Key D is the next one that the branch needs, and the thief lacks it.
        alien = [ALIEN + 1]
        assert extend(below, [forge_rotate(below, depth, [depth - 1, *alien], more=40)])[1]
        assert extend(below, [forge_rotate(below, alien[0], [depth - 1, *alien], more=40)])[1]
        assert heard(misled, truth).chains == (truth,)
        # With it, D + 1 in a row, the first alien root comes in, and the branch stays.
        beyond = forged(below, (depth, [depth - 1, depth], ALIEN + depth))
        beyond = forged(beyond, (ALIEN + 1, [depth, ALIEN + 1], ALIEN + 15))
        lost = heard(sleeper, beyond)
        assert kid(ALIEN + 1) in roots_of(lost)
        assert heard(lost, truth).chains == (beyond,)
    finally:
        lineage.genesis.cache_clear()


@pytest.mark.req("B11")
def test_the_sum_of_all_a_thief_can_do_below_the_depth_heals() -> None:
    """Sixteen stolen roots, D of them in a row: still honest roots only."""
    truth = honest(18, revoked=range(17))
    branch = lineage.genesis()
    for number in range(1, 16):
        branch = forged(branch, (number, [number - 1, number], ALIEN + number % 16))
    misled = heard(from_chain(lineage.genesis()), branch)
    assert roots_of(misled) == set(kids(range(16)))
    assert heard(misled, truth).chains == (truth,)


def test_a_machine_thief_s_forced_rotation_is_beaten_by_honest_ones() -> None:
    """Holder of the current root and one standby key: beaten by two honest rotations."""
    ours = from_chain(honest(3))
    theft = forged(honest(3), (3, [2, 3], ALIEN))
    assert heard(ours, theft).chains == (theft,)
    assert heard(heard(ours, theft), honest(4)).chains == (theft,)
    assert heard(heard(ours, theft), honest(5)).chains == (honest(5),)


def test_evidence_is_bounded_and_the_first_is_kept() -> None:
    state = from_chain(honest(4))
    branches = [forged(honest(3), (3, [2, 3], 100 + n)) for n in range(MAX_EVIDENCE + 4)]
    for branch in branches:
        state = heard(state, branch)
    assert [fork.theirs for fork in state.first.forks] == [
        branch.encoded[3] for branch in branches[:MAX_EVIDENCE]
    ]


# Rule 12, heads.


def counted(state: TrustState, head: bytes) -> TrustState:
    outcome = accept_head(state, head, NOW)
    assert outcome.verdict is Verdict.COUNTED, outcome.reason
    return outcome.state


def test_a_head_counts_and_denies() -> None:
    chain = honest(3)
    state = counted(from_chain(chain), lineage.head(chain, 2, time=100, denied=kids([50])))
    assert trust.denied(state) == {kid(50)}
    assert state.heads == (lineage.head(chain, 2, time=100, denied=kids([50])),)
    state = counted(state, lineage.head(chain, 2, time=101))
    assert trust.denied(state) == frozenset()


def test_the_same_head_again_is_the_same() -> None:
    chain = honest(3)
    head = lineage.head(chain, 2)
    state = counted(from_chain(chain), head)
    assert accept_head(state, head, NOW).verdict is Verdict.SAME
    assert accept_head(state, head, NOW).state == state


@pytest.mark.parametrize("signer", [0, 1, 3, ALIEN], ids="key {}".format)
def test_only_the_current_root_can_say_it(signer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stolen lesser key would freeze the fleet: it denies whom it likes."""
    chain = honest(3)
    state = from_chain(chain)
    attack = lineage.head(chain, signer, denied=kids(range(50, 60)))
    outcome = accept_head(state, attack, NOW)
    assert (outcome.verdict, outcome.state) == (Verdict.IGNORED, state)
    assert kid(signer).hex() in outcome.reason
    without_head_check(monkeypatch, "_by_current_root")
    assert trust.denied(counted(state, attack)) == set(kids(range(50, 60)))


def test_a_head_from_before_a_revoke_hides_it_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = honest(3), honest(3, revoked=[0])
    captured = lineage.head(before, 2, time=500)
    state = from_chain(after)
    assert accept_head(state, captured, NOW).verdict is Verdict.IGNORED
    without_head_check(monkeypatch, "_names_last")
    assert accept_head(state, captured, NOW).verdict is Verdict.COUNTED


@pytest.mark.parametrize("time", [0, 99, 100])
def test_a_replayed_head_does_not_free_a_denied_key(
    time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = honest(3)
    state = counted(from_chain(chain), lineage.head(chain, 2, time=100, denied=kids([50])))
    replayed = lineage.head(chain, 2, time=time)
    outcome = accept_head(state, replayed, NOW)
    assert (outcome.verdict, outcome.state) == (Verdict.IGNORED, state)
    without_head_check(monkeypatch, "_is_newer")
    assert trust.denied(counted(state, replayed)) == frozenset()


@pytest.mark.parametrize(
    "signer", [pytest.param(2, id="the current root"), pytest.param(ALIEN, id="anybody")]
)
def test_a_head_beyond_ours_says_catch_up_and_nothing_else(signer: int) -> None:
    state = from_chain(honest(3))
    outcome = accept_head(state, lineage.head(honest(5), signer, denied=kids([50])), NOW)
    assert (outcome.verdict, outcome.n, outcome.state) == (Verdict.BEHIND, 4, state)


def test_a_head_beyond_every_chain_starts_no_catch_up() -> None:
    head = lineage.head(honest(3), 2, n=1024)
    assert accept_head(from_chain(honest(3)), head, NOW).verdict is Verdict.IGNORED


@pytest.mark.req("B10")
@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("signer", [0, 1, 2], ids="root {}".format)
def test_another_entry_at_or_below_ours_is_a_fork(n: int, signer: int) -> None:
    chain = honest(3, revoked=[0]).cut(4)
    state = from_chain(chain)
    head = lineage.head(chain, signer, n=n, entry_id=bytes(32), denied=kids([50]))
    outcome = accept_head(state, head, NOW)
    assert (outcome.verdict, outcome.n) == (Verdict.FORK, n)
    assert outcome.evidence == trust.Fork(n, chain.encoded[n], head)
    assert outcome.state.first.forks == (outcome.evidence,)
    assert trust.effect(outcome.state) == trust.effect(state)


def test_a_stranger_makes_no_evidence() -> None:
    state = from_chain(honest(3))
    head = lineage.head(honest(3), ALIEN, n=1, entry_id=bytes(32))
    assert accept_head(state, head, NOW).verdict is Verdict.IGNORED
    assert accept_head(state, head, NOW).state == state


@pytest.mark.parametrize("data", [b"", b"noise", lineage.head(lineage.genesis(), 0)[:-1]])
def test_noise_is_ignored_and_never_raises(data: bytes) -> None:
    state = from_chain(honest(2))
    outcome = accept_head(state, data, NOW)
    assert (outcome.verdict, outcome.state) == (Verdict.IGNORED, state)
    assert outcome.reason


def test_a_head_of_an_unknown_slot_is_ignored() -> None:
    other = lineage.genesis(b"another one, 16.")
    outcome = accept_head(from_chain(honest(2)), lineage.head(other, 0), NOW)
    assert (outcome.verdict, outcome.reason) == (Verdict.IGNORED, "unknown slot")


def test_a_head_from_the_far_future_is_not_for_ever() -> None:
    """Its time is forgotten at a ROTATE, and not at a REVOKE."""
    state = counted(from_chain(honest(2)), lineage.head(honest(2), 1, time=2**62))
    revoked = honest(2, revoked=[0])
    state = accept_entries(state, revoked.slot, 2, revoked.encoded[2:]).state
    assert accept_head(state, lineage.head(revoked, 1), NOW).verdict is Verdict.IGNORED
    rotated = lineage.rotate(revoked)
    state = accept_entries(state, rotated.slot, 3, rotated.encoded[3:]).state
    assert accept_head(state, lineage.head(rotated, 2), NOW).verdict is Verdict.COUNTED


def test_denied_keys_stay_denied_over_a_rotate_until_the_next_head() -> None:
    chain, longer = honest(2), honest(3)
    state = counted(from_chain(chain), lineage.head(chain, 1, denied=kids([50])))
    state = accept_entries(state, chain.slot, 2, longer.encoded[2:]).state
    assert trust.denied(state) == {kid(50)}
    assert state.heads == ()
    assert trust.denied(counted(state, lineage.head(longer, 2, time=1))) == frozenset()


def test_denied_keys_stay_denied_over_a_revoke_until_the_next_head() -> None:
    chain, longer = honest(3), honest(3, revoked=[0])
    state = counted(from_chain(chain), lineage.head(chain, 2, denied=kids([50])))
    state = accept_entries(state, chain.slot, 3, longer.encoded[3:]).state
    assert state.chains == (longer,)
    assert trust.denied(state) == {kid(50)}
    assert trust.denied(counted(state, lineage.head(longer, 2, time=10_001))) == frozenset()


def test_a_head_says_how_far_the_clocks_are_apart() -> None:
    chain = honest(2)
    head = lineage.head(chain, 1, time=int(NOW.timestamp()) + 7200)
    outcome = accept_head(from_chain(chain), head, NOW)
    assert (outcome.verdict, outcome.ahead) == (Verdict.COUNTED, 7200.0)


# Rules 16 and 17, effect.


def test_a_root_that_came_and_went_inside_a_catch_up_is_never_used() -> None:
    far = honest(3, revoked=[0, 1])
    state = from_chain(lineage.genesis())
    whole = accept_entries(state, far.slot, 1, far.encoded[1:]).state
    assert trust.tls_roots(whole) == (lineage.root(2, 2),)
    # Entry by entry, which is what a catch-up must not be used as, it would be.
    piece = accept_entries(state, far.slot, 1, far.encoded[1:2]).state
    assert lineage.root(1, 1) in trust.tls_roots(piece)


def test_the_effect_changes_with_roots_and_denied_keys_and_nothing_else() -> None:
    chain = honest(3)
    state = from_chain(chain)
    start = trust.effect(state)
    state = counted(state, lineage.head(chain, 2, time=1))
    state = accept_head(state, lineage.head(chain, 1, n=1, entry_id=bytes(32)), NOW).state
    state = counted(state, lineage.head(chain, 2, time=2))
    assert trust.effect(state) == start
    denied = trust.effect(counted(state, lineage.head(chain, 2, time=3, denied=kids([50]))))
    assert denied != start
    revoked = honest(3, revoked=[0])
    assert trust.effect(heard(state, revoked)) != start
    assert trust.effect(heard(state, honest(4))) != start


def test_a_first_head_must_be_well_formed() -> None:
    chain = lineage.genesis()
    state = from_chain(chain, head=lineage.head(chain, 0))
    assert state.heads == (lineage.head(chain, 0),)
