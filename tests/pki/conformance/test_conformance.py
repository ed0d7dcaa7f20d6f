"""Histories that an adversary could have written, judged by both verifiers alike.

A history is drawn as a list of acts upon an honest chain: most of them valid, some with a wrong
signer, another key, a flipped bit, a left-out entry. Each act may hold any key.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding, ledger, trust
from pki.entries import decode_entry
from pki.errors import PKIError
from pki.heads import parse_head
from pki.ledger import Chain, extend
from tests.pki import lineage
from tests.pki.conformance import oracle
from tests.pki.lineage import (
    ALIEN,
    NOW,
    forge_revoke,
    forge_rotate,
    genesis,
    honest,
    kid,
    number_of,
)

KEYS = st.sampled_from([*range(20), ALIEN, ALIEN + 1])


@dataclass(frozen=True)
class Act:
    """One entry, written after a chain; the chain goes on from it if it is valid there."""

    name: str
    write: Callable[[Chain], bytes]


def _honest_rotate(chain: Chain) -> bytes:
    return lineage.rotate(chain).encoded[-1]


def _tail(more: int) -> Callable[[Chain], bytes]:
    def write(chain: Chain) -> bytes:
        following, current = chain.state.next[0], chain.current_root.key_id
        signers = [number_of(current), number_of(following)]
        return forge_rotate(chain, signers[1], signers, more=more)

    return write


def _noisy(chain: Chain) -> bytes:
    entry = decode_entry(_honest_rotate(chain))
    extra = decode_entry(lineage.raw_entry(entry.body, [ALIEN, 3])).signatures
    pairs = [(s.spki, s.value) for s in (*extra, *reversed(entry.signatures))]
    return encoding.pack([entry.body, [list(pair) for pair in pairs]])


def _twin(chain: Chain) -> bytes:
    entry = decode_entry(_honest_rotate(chain))
    pairs = [[s.spki, lineage.twin(s.value)] for s in entry.signatures]
    return encoding.pack([entry.body, pairs])


def _flipped(bit: int) -> Callable[[Chain], bytes]:
    def write(chain: Chain) -> bytes:
        data = bytearray(_honest_rotate(chain))
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return bytes(data)

    return write


def _raw(kind: int, n: int) -> Callable[[Chain], bytes]:
    return lambda chain: lineage.raw_entry(
        lineage.raw_body(chain, kind, [kid(0)], n=chain.last.n + n),
        [number_of(chain.current_root.key_id)],
    )


def _revoke(numbers: list[int], signer: int | None) -> Callable[[Chain], bytes]:
    def write(chain: Chain) -> bytes:
        by = number_of(chain.current_root.key_id) if signer is None else signer
        return forge_revoke(chain, numbers, [by])

    return write


def _rotate(number: int, signers: list[int], more: int) -> Callable[[Chain], bytes]:
    return lambda chain: forge_rotate(chain, number, signers, more=more)


VALID = st.one_of(
    st.just(Act("rotate", _honest_rotate)),
    st.just(Act("noisy signatures", _noisy)),
    st.just(Act("twin signatures", _twin)),
    st.builds(lambda more: Act("tail", _tail(more)), KEYS),
    st.builds(
        lambda numbers: Act("revoke", _revoke(sorted(numbers), None)),
        st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True),
    ),
)
ANY = st.one_of(
    st.builds(
        lambda number, signers, more: Act("any rotate", _rotate(number, signers, more)),
        KEYS,
        st.lists(KEYS, max_size=3),
        KEYS,
    ),
    st.builds(
        lambda numbers, signer: Act("any revoke", _revoke(numbers, signer)),
        st.lists(KEYS, max_size=3),
        KEYS,
    ),
    st.builds(lambda bit: Act("flipped", _flipped(bit)), st.integers(0, 900 * 8)),
    st.builds(lambda kind, n: Act("raw", _raw(kind, n)), st.integers(0, 7), st.integers(0, 2)),
)
ACTS = st.lists(st.one_of(VALID, VALID, VALID, ANY), max_size=6)


def written(start: Chain, acts: list[Act]) -> list[bytes]:
    """The entries of a history, the invalid ones among them."""
    chain, entries = start, list(start.encoded)
    for act in acts:
        try:
            data = act.write(chain)
        except (PKIError, KeyError):
            continue  # the honest writer refuses, or the next key is nobody's
        entries.append(data)
        chain, _ = extend(chain, [data])
    return entries


STARTS = st.integers(1, 4).map(honest)


@pytest.mark.req("B10")
@given(STARTS, ACTS, st.integers(0, 9))
def test_both_read_the_same_chain(start: Chain, acts: list[Act], left_out: int) -> None:
    entries = written(start, acts)
    if 0 < left_out < len(entries) - 1:
        del entries[left_out]
    total = oracle.add_up(entries)
    chain, problem = ledger.read_chain(entries)
    assert (problem is None) == (len(total.entry_ids) == len(entries))
    if chain is None:
        assert total.entry_ids == []
        return
    assert [entry.id for entry in chain.entries] == total.entry_ids
    assert list(chain.state.key_ids) == total.roots
    assert list(chain.state.next) == total.next
    assert set(chain.revoked) == total.revoked


@pytest.mark.req("B10", "B11")
@given(STARTS, ACTS, ACTS)
def test_both_replace_the_same_chains(start: Chain, ours: list[Act], theirs: list[Act]) -> None:
    mine, _ = ledger.read_chain(written(start, ours))
    assert mine is not None
    heard = written(start, theirs)
    outcome = trust.accept_entries(trust.from_chain(mine), mine.slot, 0, heard)
    mine_sum, heard_sum = oracle.add_up(list(mine.encoded)), oracle.add_up(heard)
    assert outcome.changed == oracle.replaces(mine_sum, heard_sum)
    after = heard_sum if outcome.changed else mine_sum
    assert [entry.id for entry in outcome.state.first.chain.entries] == after.entry_ids


@pytest.mark.req("B10", "B11")
@given(ACTS)
def test_below_the_depth_a_misled_component_always_heals(acts: list[Act]) -> None:
    """Whatever old roots write to a sleeper: without aliens among the roots it is undone."""
    truth = honest(20, revoked=range(19))
    misled = trust.accept_entries(
        trust.from_chain(genesis()), genesis().slot, 0, written(genesis(), acts)
    ).state
    assert set(misled.first.chain.state.key_ids) <= {kid(n) for n in range(19)}
    healed = trust.accept_entries(misled, genesis().slot, 0, truth.encoded).state
    assert healed.chains == (truth,)


@given(
    STARTS,
    st.lists(
        st.tuples(st.integers(0, 4), KEYS, st.integers(0, 3), st.booleans(), st.integers(0, 3000)),
        max_size=6,
    ),
)
def test_both_count_the_same_heads(
    chain: Chain, heads: list[tuple[int, int, int, bool, int]]
) -> None:
    state = trust.from_chain(chain)
    total = oracle.add_up(list(chain.encoded))
    body: bytes | None = None
    time: int | None = None
    for n, signer, when, real, bit in heads:
        named = chain.entries[min(n, len(chain.entries) - 1)].id if real else bytes(32)
        data = lineage.head(chain, signer, time=when, n=n, entry_id=named)
        if bit < len(data) * 8:
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            data = bytes(flipped)
        expected = oracle.judge_head(total, body, time, data)
        outcome = trust.accept_head(state, data, NOW)
        assert outcome.verdict == expected
        state = outcome.state
        if expected == "counted":
            signed = parse_head(data)
            body, time = signed.body, signed.head.time


@given(st.binary(max_size=60))
def test_both_read_the_same_values(data: bytes) -> None:
    try:
        expected: object = oracle.value_at(data, 0)
    except oracle.BadError:
        expected = None
    try:
        value = encoding.unpack(data, max_bytes=64)
    except PKIError:
        assert expected is None or expected != (expected, len(data))
        return
    # Booleans and nil are of the encoding, and of no ledger.
    if not any(byte in data for byte in b"\xc0\xc2\xc3"):
        assert expected == (value, len(data))
