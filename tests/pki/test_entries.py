"""Form: rule 1, and what an entry's bytes may and may not be."""

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki import certificates, encoding, entries, keys, ledger
from pki.entries import Body, Genesis, Kind, Revoke, Rotate, decode_entry, entry_id, parse_body
from pki.errors import MalformedError, PKIError, SignatureError
from pki.keys import KeyId
from tests.pki import lineage
from tests.pki.lineage import kid, kids

ids = st.binary(min_size=32, max_size=32).map(KeyId)
lists = st.lists(ids, min_size=16, max_size=16, unique=True).map(tuple)
naturals = st.integers(min_value=0, max_value=2**63 - 1)
genesis = st.builds(Genesis, st.binary(min_size=16, max_size=16), st.binary(max_size=64), lists)
rotate = st.builds(Rotate, st.binary(max_size=64), ids)
revoke = st.lists(ids, min_size=1, max_size=4, unique=True).map(lambda found: Revoke(tuple(found)))


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    payload = draw(st.one_of(genesis, rotate, revoke))
    previous = b"" if isinstance(payload, Genesis) else draw(ids)
    return Body(draw(naturals), previous, draw(naturals), draw(ids), payload)


@given(bodies())
def test_a_body_is_read_back_as_it_was_written(body: Body) -> None:
    assert parse_body(body.encode()) == body


@given(bodies(), st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_changed_byte_is_another_body_or_none(body: Body, place: int, value: int) -> None:
    """One value has one encoding: whatever is read encodes to the bytes it was read from."""
    data = bytearray(body.encode())
    data[place % len(data)] = value
    try:
        parsed = parse_body(bytes(data))
    except MalformedError:
        return
    assert parsed.encode() == bytes(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_a_documented_error(data: bytes) -> None:
    try:
        entry = decode_entry(data)
    except MalformedError:
        return
    assert entry.encode() == data


def _genesis(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "deployment": lineage.DEPLOYMENT,
        "root": lineage.root(0, 0),
        "next": kids(range(1, 17)),
        "k": 0,
        "recovery": [],
    }
    return list((fields | changes).values())


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(_genesis(next=kids(range(1, 16))), id="15 next keys"),
        pytest.param(_genesis(next=kids(range(1, 18))), id="17 next keys"),
        pytest.param(_genesis(next=[*kids(range(1, 16)), kid(1)]), id="a next key twice"),
        pytest.param(_genesis(next=[*kids(range(1, 16)), b"short"]), id="a short next key"),
        pytest.param(_genesis(k=1), id="a quorum of nobody"),
        pytest.param(_genesis(k=0, recovery=kids([40])), id="recovery keys without a quorum"),
        pytest.param(_genesis(k=3, recovery=kids([40, 41])), id="3 of 2"),
        pytest.param(_genesis(k=2, recovery=kids([40, 40])), id="a recovery key twice"),
        pytest.param(_genesis(k=1, recovery=kids(range(40, 57))), id="17 recovery keys"),
        pytest.param(_genesis(k=True, recovery=kids([40])), id="a quorum of true"),
        pytest.param(_genesis(deployment=bytes(15)), id="a short deployment"),
        pytest.param(_genesis(root="text"), id="a root of text"),
        pytest.param(_genesis()[:4], id="a field missing"),
    ],
)
def test_a_genesis_of_another_form_is_malformed(payload: list[object]) -> None:
    parse_body(lineage.raw_body(None, 0, _genesis()))
    with pytest.raises(MalformedError):
        parse_body(lineage.raw_body(None, 0, payload))


def test_a_genesis_may_bring_a_recovery_set() -> None:
    body = parse_body(lineage.raw_body(None, 0, _genesis(k=2, recovery=kids([40, 41, 42]))))
    assert isinstance(body.payload, Genesis)
    assert (body.payload.quorum, len(body.payload.recovery)) == (2, 3)


@pytest.mark.parametrize(
    ("kind", "payload", "fields"),
    [
        pytest.param(1, [lineage.root(1, 1)], {}, id="ROTATE without one more key"),
        pytest.param(1, [lineage.root(1, 1), kids(range(17, 33))], {}, id="ROTATE swaps all keys"),
        pytest.param(2, [], {}, id="REVOKE of nothing"),
        pytest.param(2, kids([0, 0]), {}, id="REVOKE of one twice"),
        pytest.param(2, kids([0]), {"n": -1}, id="negative number"),
        pytest.param(2, kids([0]), {"n": 2**63}, id="number beyond 63 bits"),
        pytest.param(2, kids([0]), {"time": -1}, id="negative time"),
        pytest.param(2, kids([0]), {"audit": bytes(31)}, id="short audit hash"),
        pytest.param(2, kids([0]), {"previous": b""}, id="no previous"),
    ],
)
def test_another_form_is_malformed(kind: int, payload: object, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_body(lineage.raw_body(lineage.honest(2), kind, payload, **fields))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_one_more_key_id_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedError, match="one more key id"):
        parse_body(lineage.raw_body(lineage.honest(1), 1, [lineage.root(1, 1), bytes(length)]))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(3, {}), (4, {}), (5, {}), (6, {}), (255, {}), (-1, {}), (1, {"version": 2})],
)
def test_another_kind_or_version_is_unknown(kind: int, fields: dict[str, Any]) -> None:
    with pytest.raises(entries.UnknownEntryError):
        parse_body(lineage.raw_body(lineage.honest(2), kind, [], **fields))


def _lenient(data: bytes, *, max_bytes: int) -> object:
    assert len(data) <= max_bytes
    return msgpack.unpackb(data, raw=False)


@pytest.mark.req("B10")
def test_a_second_encoding_of_one_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = lineage.honest(2)
    body = lineage.raw_body(chain, 2, kids([0]))
    assert body[3] == 2  # n, in the shortest form
    longer = body[:3] + b"\xcc\x02" + body[4:]
    assert msgpack.unpackb(longer, raw=False) == msgpack.unpackb(body, raw=False)
    second = lineage.raw_entry(longer, [1])
    assert ledger.extend(chain, [lineage.raw_entry(body, [1])])[1] is None
    assert ledger.extend(chain, [second])[0] == chain
    # Without the rule there are two histories that say the same, and a fork that is none.
    monkeypatch.setattr(encoding, "unpack", _lenient)
    assert ledger.extend(chain, [second])[0].revoked == {kid(0)}


@pytest.mark.req("B10")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: (None, lineage.genesis()), id="GENESIS"),
        pytest.param(lambda: (lineage.honest(2), lineage.honest(3)), id="ROTATE"),
        pytest.param(lambda: (lineage.honest(3), lineage.honest(3, revoked=[0, 1])), id="REVOKE"),
    ],
)
def test_every_flipped_bit_of_an_entry_ends_the_chain(
    make: Callable[[], tuple[ledger.Chain | None, ledger.Chain]],
) -> None:
    before, after = make()
    prefix = () if before is None else before.encoded
    good = after.encoded[-1]
    assert ledger.read_chain([*prefix, good])[0] == after
    for place in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            chain, problem = ledger.read_chain([*prefix, bytes(flipped)], known=before)
            assert chain == before
            assert problem is not None


def test_every_cut_of_an_entry_is_malformed() -> None:
    good = lineage.honest(2).encoded[-1]
    for length in range(len(good)):
        with pytest.raises(MalformedError):
            decode_entry(good[:length])


def test_a_twin_signature_changes_neither_id_nor_validity() -> None:
    chain, longer = lineage.honest(2), lineage.honest(3)
    body, signatures = msgpack.unpackb(longer.encoded[-1])
    altered = encoding.pack([body, [[spki, lineage.twin(sig)] for spki, sig in signatures]])
    assert altered != longer.encoded[-1]
    extended, problem = ledger.extend(chain, [altered])
    assert problem is None
    assert extended.last == longer.last


def test_signatures_that_nobody_asked_for_are_dropped() -> None:
    chain, longer = lineage.honest(2), lineage.honest(3)
    entry = decode_entry(longer.encoded[-1])
    strangers = decode_entry(lineage.raw_entry(entry.body, range(30, 34))).signatures
    bad = entries.Signature(entry.signatures[0].spki, b"no signature")
    noisy = entries.Entry(entry.body, (*strangers, bad, *reversed(entry.signatures), *strangers))
    assert ledger.extend(chain, [noisy.encode()]) == (longer, None)


def test_dropped_signatures_do_not_count_for_the_limit() -> None:
    chain, longer = lineage.honest(2), lineage.honest(3)
    entry = decode_entry(longer.encoded[-1])
    noise = tuple(entries.Signature(b"x" * 91, b"y" * 900) for _ in range(20))
    padded = entries.Entry(entry.body, (*noise, *entry.signatures)).encode()
    assert len(padded) > entries.MAX_ENTRY
    assert ledger.extend(chain, [padded]) == (longer, None)


def test_an_entry_is_measured_before_it_is_looked_at() -> None:
    chain, longer = lineage.honest(1), lineage.honest(2)
    body, signatures = msgpack.unpackb(longer.encoded[-1])

    def padded(size: int) -> bytes:
        without = len(encoding.pack([body, [*signatures, [b"", bytes(size // 2)]]])) - size // 2
        return encoding.pack([body, [*signatures, [b"", bytes(size - without)]]])

    most = padded(entries.MAX_RECEIVED)
    assert len(most) == entries.MAX_RECEIVED
    assert ledger.extend(chain, [most]) == (longer, None)
    kept, problem = ledger.extend(chain, [padded(entries.MAX_RECEIVED + 1)])
    assert kept == chain
    assert problem is not None


def test_one_key_counts_once() -> None:
    """A ROTATE with two signatures of the current root lacks the new root's."""
    data = lineage.forge_rotate(lineage.honest(2), 2, [1, 1], more=18)
    chain, problem = ledger.extend(lineage.honest(2), [data])
    assert chain == lineage.honest(2)
    assert problem is not None
    assert kid(2).hex() in problem.text


def test_keep_names_the_key_that_has_not_signed() -> None:
    entry = lineage.honest(2).entries[-1]
    with pytest.raises(SignatureError, match=kid(5).hex()):
        entry.keep([keys.spki(lineage.key(5).public_key())])


@pytest.mark.parametrize(
    ("der", "place"),
    [
        pytest.param(lineage.root(1, 1), 0, id="named for another place"),
        pytest.param(lineage.root(1, 11), 1, id="Root 11 at place 1"),
        pytest.param(lineage.root(1, 1) + b"\0", 1, id="a byte after it"),
        pytest.param(lineage.root(1, 1)[:-1], 1, id="cut"),
        pytest.param(b"", 1, id="nothing"),
        pytest.param(lineage.root(1, 1)[:-4] + bytes(4), 1, id="a self-signature that is not good"),
    ],
)
def test_a_root_is_what_it_says_or_nothing(der: bytes, place: int) -> None:
    assert entries.Root.parse(lineage.root(1, 1), 1).key_id == kid(1)
    with pytest.raises(PKIError):
        entries.Root.parse(der, place)


def test_a_root_that_names_another_algorithm_than_it_is_signed_with_is_refused() -> None:
    name = certificates.common_name("s.example Root 1")
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=lineage.key(1).public_key(),
        serial_number=1,
        not_valid_before=lineage.NOW.replace(tzinfo=None),
        not_valid_after=certificates.NEVER.replace(tzinfo=None),
    )
    # A numbered key signs with SHA-256, whatever it is asked for.
    honest, lying = (
        builder.sign(lineage.key(1), algorithm).public_bytes(Encoding.DER)
        for algorithm in (hashes.SHA256(), hashes.SHA384())
    )
    assert entries.Root.parse(honest, 1).key_id == kid(1)
    with pytest.raises(MalformedError):
        entries.Root.parse(lying, 1)


def test_the_id_is_over_the_body_alone() -> None:
    entry = lineage.honest(3).entries[1]
    assert entry.id == entry_id(entry.body)
    assert entries.Entry(entry.body, ()).id == entry.id


def test_a_time_that_no_calendar_has_is_not_shown() -> None:
    chain = lineage.honest(2)
    body = Body(2, chain.last.id, 2**63 - 1, bytes(32), Revoke((kid(0),)))
    assert entries.sign_entry(body, [lineage.key(1)]).time is None
    shown = lineage.genesis().entries[0].time
    assert shown is not None
    assert shown.timestamp() == 1_000


def test_kinds_have_their_numbers() -> None:
    assert [(kind.name, int(kind)) for kind in Kind] == [
        ("GENESIS", 0),
        ("ROTATE", 1),
        ("REVOKE", 2),
    ]
