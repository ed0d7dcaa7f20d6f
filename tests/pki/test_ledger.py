"""Rules 1 to 4: which entries may follow which, each with the attack that it stops.

Where a test takes a mutant, the attack fails with the rule and succeeds with that rule alone
taken away: so it is the rule that stops it, and not something else.
"""

from collections.abc import Callable

import pytest

from pki import certificates, entries, keys, ledger, steps, trust
from pki.entries import Kind
from pki.errors import MalformedError, PKIError, RefusedError, UntrustedError
from pki.ledger import Chain, extend, read_chain
from tests.pki import lineage
from tests.pki.lineage import ALIEN, AUDIT, forge_revoke, forge_rotate, honest, kid, kids
from tests.pki.mutants import without_check, without_signer


def _refused(chain: Chain, *entries: bytes) -> bool:
    """Whether the first of these ends the chain."""
    extended, problem = extend(chain, entries)
    assert (problem is None) == (extended != chain)
    return extended == chain


def test_state_is_what_the_entries_add_up_to() -> None:
    chain = honest(4, revoked=[0, 2])
    assert [root.key_id for root in chain.roots] == kids(range(4))
    assert [root.name for root in chain.roots] == [f"s.example Root {i}" for i in range(4)]
    assert chain.state.next == tuple(kids(range(4, 20)))
    assert chain.revoked == {kid(0), kid(2)}
    assert [root.key_id for root in chain.trusted_roots] == kids([1, 3])
    assert chain.current_root.key_id == kid(3)
    assert chain.deployment == lineage.DEPLOYMENT
    assert chain.slot == chain.entries[0].id
    assert (chain.last.n, chain.last.id) == (4, chain.entries[4].id)


@pytest.mark.req("B2")
def test_roots_revoked_one_after_the_other_are_all_revoked() -> None:
    chain = lineage.revoke(lineage.revoke(honest(4), 0), 2)
    assert chain.revoked == set(kids([0, 2]))
    assert read_chain(chain.encoded) == (chain, None)
    assert trust.trusted(trust.from_chain(chain)) == set(kids([1, 3]))


def test_no_entry_has_a_number_below_zero() -> None:
    chain = honest(2)
    assert chain.has(1, chain.last.id)
    assert not chain.has(-1, chain.last.id)


def test_a_component_follows_any_number_of_rotations() -> None:
    far = honest(40, revoked=range(39))
    chain, problem = extend(lineage.genesis(), far.encoded[1:])
    assert problem is None
    assert chain == far


def test_a_chain_is_read_back_as_it_was_written() -> None:
    chain = honest(3, revoked=[1])
    assert Chain.decode(chain.encode()) == chain
    for length in range(0, len(chain.encode()), 7):
        with pytest.raises(MalformedError):
            Chain.decode(chain.encode()[:length])


@pytest.mark.parametrize("length", range(1, 6))
def test_a_cut_chain_is_the_chain_as_it_was(length: int) -> None:
    chain = honest(4, revoked=[0, 2])
    assert chain.cut(length) == read_chain(chain.encoded[:length])[0]


def test_what_is_known_already_changes_nothing_in_the_result() -> None:
    ours, theirs = honest(3), lineage.rotate(honest(3, revoked=[0]))
    assert read_chain(theirs.encoded, known=ours) == (theirs, None)
    assert read_chain(ours.encoded[:2], known=ours)[0] == honest(2)


def test_a_chain_ends_before_an_unknown_entry() -> None:
    """The door for later kinds: what comes after one is not looked at."""
    chain = honest(2)
    unknown = lineage.raw_entry(lineage.raw_body(chain, 4, [bytes(32)]), [1])
    extended, problem = extend(chain, [unknown, *honest(3).encoded[2:]])
    assert extended == chain
    assert problem is not None
    assert (problem.n, problem.unknown) == (2, True)


def test_an_invalid_entry_is_no_unknown_one() -> None:
    problem = extend(honest(2), [b"noise"])[1]
    assert problem is not None
    assert not problem.unknown
    assert str(problem).startswith("entry 2: ")


# Rule 1, limits.


def test_limits_are_those_of_the_specification() -> None:
    assert (entries.DEPTH, entries.MAX_ENTRY) == (16, 16 * 1024)
    assert (ledger.MAX_ENTRIES, ledger.MAX_CHAIN) == (1024, 4 * 1024 * 1024)


@pytest.mark.parametrize("limit", ["MAX_ENTRIES", "MAX_CHAIN"])
def test_a_chain_ends_at_its_limit(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, longer = honest(3), honest(4)
    assert not _refused(chain, longer.encoded[-1])
    full = {"MAX_ENTRIES": len(chain.entries), "MAX_CHAIN": longer.size - 1}[limit]
    monkeypatch.setattr(ledger, limit, full)
    assert _refused(chain, longer.encoded[-1])
    with pytest.raises(MalformedError):
        lineage.rotate(chain)


def test_an_entry_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = honest(3).encoded[-1]
    monkeypatch.setattr(steps, "MAX_ENTRY", len(entry))
    assert not _refused(honest(2), entry)
    monkeypatch.setattr(steps, "MAX_ENTRY", len(entry) - 1)
    assert _refused(honest(2), entry)


# Rule 2, order.


@pytest.mark.req("B10")
def test_history_with_its_revokes_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    full = lineage.rotate(honest(3, revoked=[0, 1]))
    without = [*full.encoded[:3], full.encoded[4]]
    chain, problem = read_chain(without)
    assert chain == honest(3)
    assert problem is not None
    without_check(monkeypatch, Kind.ROTATE, "_order")
    chain, _ = read_chain(without)
    assert chain is not None
    assert kid(0) in {root.key_id for root in chain.trusted_roots}


@pytest.mark.req("B10")
@pytest.mark.parametrize(
    "order",
    [(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2), (0, 2, 3), (1, 2, 3), (0, 0, 1)],
    ids=str,
)
def test_another_order_ends_the_chain(order: tuple[int, ...]) -> None:
    chain = honest(4)
    read, problem = read_chain([chain.encoded[n] for n in order])
    assert problem is not None
    assert read is None or len(read.entries) <= problem.n
    assert read is None or chain.begins_with(read)


@pytest.mark.parametrize("n", [1, 3, 2**40])
def test_a_number_that_is_not_the_next_one(n: int) -> None:
    chain = honest(2)
    assert _refused(chain, forge_rotate(chain, 2, [1, 2], more=18, n=n))
    assert not _refused(chain, forge_rotate(chain, 2, [1, 2], more=18))


def test_an_entry_of_another_branch_does_not_follow() -> None:
    ours, other = honest(3), lineage.rotate(honest(2), more=ALIEN)
    assert _refused(ours, lineage.rotate(other).encoded[-1])


def test_a_genesis_begins_and_nothing_else_does() -> None:
    assert _refused(honest(2), lineage.genesis().encoded[0])
    assert read_chain(honest(3).encoded[1:])[0] is None
    assert read_chain([])[0] is None


@pytest.mark.parametrize("previous", [b"", lineage.honest(2).last.id], ids=["none", "ours"])
def test_a_genesis_with_the_next_number_does_not_follow(previous: bytes) -> None:
    payload = [lineage.DEPLOYMENT, lineage.root(2, 2), kids(range(3, 19)), 0, []]
    body = lineage.raw_body(None, 0, payload, n=2, previous=previous)
    assert _refused(honest(2), lineage.raw_entry(body, [2]))


@pytest.mark.parametrize("previous", [b"", bytes(32)], ids=["none", "zeros"])
@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        pytest.param(1, [lineage.root(0, 0), kid(17)], id="ROTATE"),
        pytest.param(2, kids([0]), id="REVOKE"),
    ],
)
def test_another_kind_with_the_first_number_does_not_begin(
    kind: int, payload: list[bytes], previous: bytes
) -> None:
    body = lineage.raw_body(None, kind, payload, previous=previous)
    assert read_chain([lineage.raw_entry(body, [0])])[0] is None


# Rule 3, rotate.


@pytest.mark.req("B10", "B11")
def test_root_0_names_its_own_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = lineage.genesis()
    attack = forge_rotate(chain, ALIEN, [0, ALIEN], more=17)
    assert _refused(chain, attack)
    without_check(monkeypatch, Kind.ROTATE, "_commit")
    assert not _refused(chain, attack)


@pytest.mark.req("B11")
def test_the_current_and_the_next_root_skip_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = lineage.genesis()
    attack = forge_rotate(chain, 2, [0, 2], more=17)
    assert _refused(chain, attack)
    without_check(monkeypatch, Kind.ROTATE, "_commit")
    assert not _refused(chain, attack)


@pytest.mark.req("B11")
@pytest.mark.parametrize("more", [0, 1, 2, 3, 17], ids="more is key {}".format)
def test_a_key_is_committed_to_once(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a revoked root could be carried along until it is the newest again."""
    chain = honest(2, revoked=[0])
    attack = forge_rotate(chain, 2, [1, 2], more=more)
    assert _refused(chain, attack)
    without_check(monkeypatch, Kind.ROTATE, "_carry")
    assert not _refused(chain, attack)


@pytest.mark.req("B10", "B11")
@pytest.mark.parametrize(
    ("signers", "missing"),
    [
        pytest.param([1], "_current", id="standby alone"),
        pytest.param([0], "_new", id="current alone"),
        pytest.param([1, ALIEN], "_current", id="a stranger for the current one"),
        pytest.param([0, ALIEN], "_new", id="a stranger for the new one"),
    ],
)
def test_a_rotation_needs_both_signatures(
    signers: list[int], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = lineage.genesis()
    attack = forge_rotate(chain, 1, signers, more=17)
    assert _refused(chain, attack)
    assert not _refused(chain, forge_rotate(chain, 1, [0, 1], more=17))
    without_signer(monkeypatch, Kind.ROTATE, missing)
    assert not _refused(chain, attack)


def test_an_older_root_cannot_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root 0 is trusted still, and signs nothing any more."""
    chain = honest(2)
    attack = forge_rotate(chain, 2, [0, 2], more=18)
    assert _refused(chain, attack)
    without_signer(monkeypatch, Kind.ROTATE, "_current")
    assert not _refused(chain, attack)


def test_the_right_key_in_a_root_of_another_place() -> None:
    chain = lineage.genesis()
    body = lineage.raw_body(chain, 1, [lineage.root(1, 2), kid(17)])
    assert _refused(chain, lineage.raw_entry(body, [0, 1]))


def test_a_first_root_is_not_its_own_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = [lineage.DEPLOYMENT, lineage.root(0, 0), kids(range(16)), 0, []]
    attack = lineage.raw_entry(lineage.raw_body(None, 0, payload), [0])
    assert read_chain([attack])[0] is None
    without_check(monkeypatch, Kind.GENESIS, "_fresh")
    assert read_chain([attack])[0] is not None


def test_a_genesis_is_signed_by_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = lineage.raw_entry(lineage.genesis().entries[0].body, [ALIEN])
    assert read_chain([attack])[0] is None
    without_signer(monkeypatch, Kind.GENESIS, "_new")
    assert read_chain([attack])[0] is not None


# Rule 4, revoke.


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([2], id="the current root itself"),
        pytest.param([0, 2], id="the current root among others"),
        pytest.param([3], id="a root to come"),
        pytest.param([ALIEN], id="no root at all"),
        pytest.param([1], id="one that is revoked already"),
        pytest.param([4, 0], id="not in order"),
    ],
)
def test_what_cannot_be_revoked(numbers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    chain = honest(3, revoked=[1]) if 4 not in numbers else honest(6)
    attack = forge_revoke(chain, numbers, [len(chain.roots) - 1])
    assert _refused(chain, attack)
    without_check(monkeypatch, Kind.REVOKE, "_revocable")
    assert not _refused(chain, attack)


def test_a_root_that_revokes_itself_would_leave_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = lineage.genesis()
    attack = forge_revoke(chain, [0], [0])
    assert _refused(chain, attack)
    without_check(monkeypatch, Kind.REVOKE, "_revocable")
    assert extend(chain, [attack])[0].trusted_roots == ()


@pytest.mark.parametrize(
    "signer", [pytest.param(ALIEN, id="a stranger"), pytest.param(0, id="an older root")]
)
def test_only_the_current_root_revokes(signer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = honest(3)
    attack = forge_revoke(chain, [1], [signer])
    assert _refused(chain, attack)
    assert not _refused(chain, forge_revoke(chain, [1], [2]))
    without_signer(monkeypatch, Kind.REVOKE, "_current")
    assert not _refused(chain, attack)


# Writers: rule 18, as far as values can.


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda chain: ledger.make_rotate(
                chain, lineage.root(3, 3), lineage.key(1), lineage.key(3), kid(19), 1, AUDIT
            ),
            id="rotate",
        ),
        pytest.param(
            lambda chain: ledger.make_revoke(chain, kids([0]), lineage.key(1), 1, AUDIT),
            id="revoke",
        ),
    ],
)
def test_nothing_is_signed_without_the_current_root(write: Callable[[Chain], Chain]) -> None:
    with pytest.raises(RefusedError, match=kid(1).hex()):
        write(honest(3))


def test_a_writer_makes_nothing_that_others_refuse() -> None:
    chain = honest(3)
    with pytest.raises(UntrustedError):
        ledger.make_rotate(
            chain, lineage.root(4, 3), lineage.key(2), lineage.key(4), kid(19), 1, AUDIT
        )
    with pytest.raises(PKIError):
        ledger.make_revoke(chain, [], lineage.key(2), 1, AUDIT)
    with pytest.raises(MalformedError):
        ledger.make_genesis(
            lineage.root(0, 0), lineage.key(0), kids(range(1, 16)), bytes(16), 1, AUDIT
        )
    with pytest.raises(MalformedError):
        ledger.make_genesis(
            lineage.root(0, 0), lineage.key(0), kids(range(1, 17)), bytes(15), 1, AUDIT
        )


def test_a_revocation_is_written_in_the_order_of_the_chain() -> None:
    chain = ledger.make_revoke(honest(4), kids([2, 0]), lineage.key(3), 2_000, AUDIT)
    assert chain == honest(4, revoked=[0, 2])


def test_keys_of_random_signatures_make_valid_entries_too() -> None:
    new = keys.generate()
    following = [keys.key_id(new.public_key()), *kids(range(2, 17))]
    first = ledger.make_genesis(lineage.root(0, 0), lineage.key(0), following, bytes(16), 1, AUDIT)
    der = certificates.make_root(new, "s.example", 1, lineage.NOW, 7)
    second = ledger.make_rotate(first, der, lineage.key(0), new, kid(17), 2, AUDIT)
    assert read_chain(second.encoded) == (second, None)
