"""The ledger file: read back as it was written, and refused when cut or altered."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding, heads, ledger, state, trust
from pki.errors import MalformedError
from pki.state import MAGIC, Fork, Slot, TrustState, decode_state, encode_state
from tests.pki import lineage
from tests.pki.lineage import AUDIT, DEPLOYMENT, NOW, honest, key, kids, root


def _full() -> TrustState:
    """A state with everything in it: a head, denied keys, a time, evidence, an entry after it."""
    chain, longer = honest(3), honest(3, revoked=[0])
    known = trust.from_chain(chain, head=lineage.head(chain, 2, denied=kids([50])))
    fork = lineage.head(chain, 1, n=1, entry_id=bytes(32))
    known = trust.accept_head(known, fork, NOW).state
    return trust.accept_entries(known, chain.slot, 3, longer.encoded[3:]).state


def _file(body: object) -> bytes:
    packed = encoding.pack(body)
    return MAGIC + hashlib.sha256(packed).digest() + packed


def _slot(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "entries": list(honest(3).encoded),
        "head": lineage.head(honest(3), 2),
        "time": 10_000,
        "forks": [],
    }
    return list((fields | changes).values())


def test_a_state_is_read_back_as_it_was_written() -> None:
    for known in (_full(), trust.from_chain(lineage.genesis())):
        again = decode_state(encode_state(known))
        assert again == known
        assert trust.effect(again) == trust.effect(known)


def test_after_a_rotate_the_time_is_still_forgotten() -> None:
    known = trust.from_chain(honest(2), head=lineage.head(honest(2), 1, time=2**62))
    known = trust.accept_entries(known, honest(2).slot, 0, honest(3).encoded).state
    again = decode_state(encode_state(known))
    assert (again.first.time, again.first.head) == (None, known.first.head)


@pytest.mark.req("B10")
def test_every_cut_file_is_refused() -> None:
    data = encode_state(_full())
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            decode_state(data[:length])
    with pytest.raises(MalformedError):
        decode_state(data + b"\0")


@pytest.mark.req("B10")
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_altered_byte_is_refused(place: int, change: int) -> None:
    data = bytearray(encode_state(_full()))
    data[place % len(data)] ^= change
    with pytest.raises(MalformedError):
        decode_state(bytes(data))


@pytest.mark.req("B10")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="no slot"),
        pytest.param([_slot(), _slot()], id="a slot twice"),
        pytest.param(
            [_slot(), _slot(entries=list(lineage.genesis(bytes(16)).encoded), head=None)],
            id="two deployments",
        ),
        pytest.param([_slot(entries=[])], id="no entry"),
        pytest.param([_slot(entries=list(honest(3).encoded[1:]))], id="no GENESIS"),
        pytest.param([_slot(entries=[*honest(3).encoded, b"noise"])], id="an invalid entry"),
        pytest.param([_slot(head=lineage.head(honest(3), 1000))], id="a stranger's head"),
        pytest.param(
            [_slot(head=lineage.head(honest(3), 2, n=1, entry_id=bytes(32)))], id="a fork's head"
        ),
        pytest.param([_slot(head=lineage.head(honest(4), 3))], id="a head beyond the chain"),
        pytest.param(
            [_slot(head=lineage.head(lineage.genesis(bytes(16)), 0))], id="another slot's head"
        ),
        pytest.param([_slot(head=b"noise")], id="no head at all"),
        pytest.param([_slot(time=-1)], id="a negative time"),
        pytest.param([_slot(forks=[[0, b"", b""]] * 17)], id="17 pieces of evidence"),
        pytest.param([_slot(forks=[[0, b""]])], id="evidence of one statement"),
    ],
)
def test_a_whole_file_of_things_that_are_not_valid_is_refused(body: list[object]) -> None:
    """Whoever can write the file can write its digest as well: what is read is verified."""
    decode_state(_file([_slot()]))
    with pytest.raises(MalformedError):
        decode_state(_file(body))


@pytest.mark.req("B10")
def test_a_head_of_another_slot_is_none_of_this_chain() -> None:
    """Although it names the last entry of this chain, and its current root has signed it."""
    last = honest(2).last
    ours, other = (
        heads.parse_head(heads.make_head(key(1), slot=slot, n=last.n, entry_id=last.id, time=1))
        for slot in (honest(2).slot, bytes(32))
    )
    decode_state(encode_state(TrustState((Slot(honest(2), ours, 1),))))
    with pytest.raises(MalformedError):
        decode_state(encode_state(TrustState((Slot(honest(2), other, 1),))))


def test_nine_slots_are_refused() -> None:
    slots = tuple(
        Slot(ledger.make_genesis(root(n, 0), key(n), kids(range(100, 116)), DEPLOYMENT, 1, AUDIT))
        for n in range(9)
    )
    assert len(decode_state(encode_state(TrustState(slots[:8]))).slots) == 8
    with pytest.raises(MalformedError):
        decode_state(encode_state(TrustState(slots)))


def test_keys_are_denied_and_trusted_across_slots() -> None:
    other = lineage.genesis(b"another one, 16.")
    both = TrustState((Slot(honest(2)), Slot(other)))
    assert trust.tls_roots(both) == (lineage.root(0, 0), lineage.root(1, 1), lineage.root(0, 0))
    assert both.find(other.slot) == Slot(other)
    assert both.find(bytes(32)) is None
    assert both.replacing(Slot(other, forks=(Fork(0, b"", b""),))).slots[0] == both.slots[0]


def test_a_full_state_fits_its_limit() -> None:
    evidence = state.MAX_EVIDENCE * 2 * 64 * 1024
    assert evidence < state.MAX_STATE - 8 * 4 * 1024 * 1024
