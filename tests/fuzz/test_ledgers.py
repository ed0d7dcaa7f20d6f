"""Well-formed and wrong: histories, heads, bundles and stores that are signed as they should be.

A fuzzer of bytes ends at the first signature. Here everything is canonical and signed again by
whoever has the keys, so that what is tried are the checks behind it.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import assume, given
from hypothesis import strategies as st

from pki import certificates, encoding, heads, keys, statements, trust
from pki.bundle import DOMAIN as BUNDLE
from pki.bundle import make_bundle, open_bundle
from pki.entries import Entry, Signature, decode_entry
from pki.errors import PKIError, RevokedError
from pki.ledger import Chain, extend, read_chain
from pki.names import Role
from pki.peers import Expectation, check_peer
from pki.state import MAGIC
from pki.trust import Verdict
from tests.fuzz.decoders import DECODERS, seeds
from tests.fuzz.depth import deeper
from tests.fuzz.mangle import changed, mangled
from tests.fuzz.regenerate import chain_of_a_client
from tests.pki import lineage
from tests.pki.lineage import ALIEN, forge_revoke, forge_rotate, honest, key, kid

WHOLE = honest(5, revoked=[0, 1])
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def packed(value: object) -> bytes:
    """The value in canonical form; what has none is not tried."""
    try:
        return encoding.pack(value)
    except (TypeError, ValueError):
        assume(False)
        raise


def is_honest(chain: Chain) -> bool:
    """Whether a chain says nothing that the honest one does not."""
    return WHOLE.begins_with(chain)


@deeper
@given(st.data())
@pytest.mark.req("B10")
def test_a_changed_entry_that_its_signers_sign_again_is_valid_or_ends_the_chain(
    depth: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(WHOLE.entries) - 1))
    before = None if place == 0 else WHOLE.cut(place)
    body = packed(data.draw(changed(encoding.unpack(WHOLE.entries[place].body, max_bytes=1 << 14))))
    forged = lineage.raw_entry(body, [0, 1, 2, 3, 4])
    if before is None:
        chain, problem = read_chain([forged])
    else:
        chain, problem = extend(before, [forged])
        assert chain.begins_with(before)
        # No key enters that was not promised, whatever the signers do.
        assert chain.state.key_ids == WHOLE.state.key_ids[: len(chain.roots)]
        assert (chain.last.n == before.last.n) == (problem is not None)
    if chain is not None:
        assert Chain.decode(chain.encode()) == chain


def _pool() -> list[bytes]:
    """Entries that the world has seen, and what the thief of the two oldest roots can write."""
    forged: list[bytes] = []
    for length in (1, 2, 3, 5):
        chain = honest(length) if length < 5 else WHOLE
        forged += [
            forge_rotate(chain, ALIEN, [0, 1, ALIEN], more=ALIEN + 1),
            forge_rotate(chain, 1, [0, 1], more=ALIEN + 2),
            forge_revoke(chain, [0], [0, 1]),
            forge_revoke(chain, [len(chain.roots) - 1], [0, 1]),
        ]
    alien = lineage.genesis(bytes(reversed(range(16))))
    return [*WHOLE.encoded, *forged, *alien.encoded]


POOL = _pool()


@deeper
@given(
    known=st.integers(3, len(WHOLE.entries)),
    first=st.integers(-1, 8),
    order=st.lists(st.integers(0, len(POOL) - 1), max_size=10),
    honest_first=st.integers(0, len(WHOLE.entries)),
    hurt=st.booleans(),
    harm=st.data(),
)
@pytest.mark.req("B10", "B11")
def test_a_history_cut_flipped_reordered_or_forked_leads_nowhere_but_to_the_honest_one(
    depth: str,
    known: int,
    first: int,
    order: Sequence[int],
    honest_first: int,
    hurt: bool,
    harm: st.DataObject,
) -> None:
    state = trust.from_chain(WHOLE.cut(known))
    slot = WHOLE.slot
    told = [*WHOLE.encoded[max(first, 0) : honest_first], *(POOL[n] for n in order)]
    if told and hurt:
        at = harm.draw(st.integers(0, len(told) - 1))
        told[at] = harm.draw(mangled(list(told)))
    outcome = trust.accept_entries(state, slot, first, told)
    after = outcome.state.first.chain
    assert is_honest(after)
    assert after.begins_with(state.first.chain)
    assert outcome.changed == (after.last != state.first.chain.last)
    if outcome.changed:
        assert trust.decode_state(trust.encode_state(outcome.state)) == outcome.state


@deeper
@given(st.data())
@pytest.mark.req("B10")
def test_a_changed_head_counts_only_if_it_could_have_been_written(
    depth: str, data: st.DataObject
) -> None:
    state = trust.from_chain(WHOLE, head=lineage.head(WHOLE, 4, time=100))
    honest_head = lineage.head(WHOLE, 4, time=200, denied=[kid(50), kid(51)])
    whole = encoding.unpack(heads.parse_head(honest_head).body, max_bytes=1 << 14)
    body = packed(data.draw(changed(whole)))
    signer = data.draw(st.sampled_from([0, 3, 4, ALIEN]))
    told = statements.make_statement(key(signer), heads.DOMAIN, body)
    outcome = trust.accept_head(state, told, NOW)
    after = outcome.state.first
    assert after.chain == WHOLE
    if outcome.verdict is Verdict.COUNTED:
        assert signer == 4
        assert after.head is not None
        assert (after.head.head.n, after.head.head.entry_id) == (WHOLE.last.n, WHOLE.last.id)
        assert after.head.head.time > 100
    elif outcome.verdict is not Verdict.FORK:
        assert outcome.state == state
    if outcome.verdict is Verdict.FORK:
        assert signer != ALIEN


@deeper
@given(st.data())
def test_a_changed_bundle_that_its_server_signs_again_opens_or_is_refused(
    depth: str, data: st.DataObject
) -> None:
    head = lineage.head(WHOLE, 4, time=200)
    bundle = make_bundle(key(4), [WHOLE], [head], {"a": "b", "log_level": "info"})
    inner = encoding.as_list(encoding.unpack(bundle, max_bytes=1 << 20), what="bundle")
    whole = encoding.unpack(encoding.as_bytes(inner[0], what="body"), max_bytes=1 << 20)
    signed = statements.make_statement(key(4), BUNDLE, packed(data.draw(changed(whole))))
    try:
        opened = open_bundle(signed)
    except PKIError:
        return
    state = trust.from_bundle(opened)
    assert is_honest(state.first.chain)
    assert trust.decode_state(trust.encode_state(state)) == state


@deeper
@given(st.data())
def test_a_changed_ledger_file_with_a_good_digest_opens_or_is_refused(
    depth: str, data: st.DataObject
) -> None:
    whole = encoding.unpack(seeds("state")[0][len(MAGIC) + 32 :], max_bytes=1 << 20)
    body = packed(data.draw(changed(whole)))
    try:
        state = trust.decode_state(MAGIC + hashlib.sha256(body).digest() + body)
    except PKIError:
        return
    assert trust.decode_state(trust.encode_state(state)) == state
    trust.tls_roots(state), state.fingerprint, state.heads


@deeper
@pytest.mark.parametrize("name", ["sealed-keyring", "sealed-standby", "statement", "entry"])
@given(st.data())
def test_changed_values_are_an_object_or_an_error(
    name: str, depth: str, data: st.DataObject
) -> None:
    value = encoding.unpack(data.draw(st.sampled_from(seeds(name))), max_bytes=1 << 20)
    decoder = DECODERS[name]
    try:
        decoder.read(packed(data.draw(changed(value))))
    except decoder.errors:
        return


# --- the other valid signature of the same message


ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


def with_twin(der: bytes) -> bytes:
    """The certificate with the valid twin of its signature, which is a byte longer or shorter."""
    parsed = x509.load_der_x509_certificate(der)
    bits = _der(0x03, b"\0" + lineage.twin(parsed.signature))
    return _der(0x30, parsed.tbs_certificate_bytes + ECDSA_WITH_SHA256 + bits)


@pytest.mark.req("B4", "B10")
def test_the_twin_of_a_denied_certificate_is_denied_by_its_key() -> None:
    chain = chain_of_a_client()
    twin = with_twin(chain[0])
    assert twin != chain[0]
    assert certificates.read(twin).key_id == certificates.read(chain[0]).key_id
    expectation = Expectation(
        frozenset({Role.CLIENT}), lineage.DEPLOYMENT, client_ca_of=bytes(range(16))
    )
    roots = {certificates.read(chain[-1]).key_id}
    shown = (twin, *chain[1:])
    # The twin is as good as the original ...
    check_peer(shown, expectation, roots=roots, denied=frozenset(), now=lineage.NOW)
    # ... and dies with it, and with any key above it.
    for der in chain:
        gone = frozenset({certificates.read(der).key_id})
        with pytest.raises(RevokedError):
            check_peer(shown, expectation, roots=roots, denied=gone, now=lineage.NOW)


@pytest.mark.req("B10")
@pytest.mark.parametrize("place", range(len(WHOLE.entries)))
def test_the_twin_of_an_entry_is_the_same_entry(place: int) -> None:
    entry = decode_entry(WHOLE.encoded[place])
    other = Entry(
        entry.body,
        tuple(Signature(one.spki, lineage.twin(one.value)) for one in entry.signatures),
    )
    assert other.encode() != entry.encode()
    assert other.id == entry.id
    told = [*WHOLE.encoded[:place], other.encode(), *WHOLE.encoded[place + 1 :]]
    chain, problem = read_chain(told)
    assert problem is None
    assert chain is not None
    assert chain.last == WHOLE.last
    outcome = trust.accept_entries(trust.from_chain(WHOLE), WHOLE.slot, 0, told)
    assert not outcome.changed
    assert outcome.evidence is None


def test_the_twin_of_an_acknowledgement_counts_as_the_same_word() -> None:
    spki, signature = trust.make_ack(key(60), bytes(32), 3, bytes(32))
    component = trust.verify_ack(spki, signature, bytes(32), 3, bytes(32))
    assert trust.verify_ack(spki, lineage.twin(signature), bytes(32), 3, bytes(32)) == component
    assert component == keys.component_id(spki)
