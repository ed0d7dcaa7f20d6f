"""Form of a head, and that its signature covers all of it. Whether one counts: test_trust."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding, heads, statements
from pki.errors import MalformedError, PKIError, SignatureError
from pki.keys import KeyId
from tests.pki import lineage
from tests.pki.lineage import kid, kids


def test_a_head_is_read_back_with_its_signer() -> None:
    chain = lineage.honest(3)
    signed = heads.parse_head(lineage.head(chain, 2, time=77, denied=kids([30, 31])))
    assert signed.key_id == kid(2)
    assert signed.head == heads.Head(
        chain.slot, chain.last.n, chain.last.id, 77, tuple(sorted(kids([30, 31])))
    )


@given(st.permutations(kids(range(30, 36))))
def test_denied_keys_have_one_order(denied: list[KeyId]) -> None:
    first = heads.parse_head(lineage.head(lineage.genesis(), 0, denied=kids(range(30, 36))))
    again = heads.parse_head(lineage.head(lineage.genesis(), 0, denied=[*denied, denied[0]]))
    assert again.body == first.body


@pytest.mark.req("B10")
def test_every_flipped_bit_of_a_head_is_refused() -> None:
    good = lineage.head(lineage.honest(2), 1, denied=kids([30]))
    for place in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            with pytest.raises(PKIError):
                heads.parse_head(bytes(flipped))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_a_documented_error(data: bytes) -> None:
    with pytest.raises((MalformedError, SignatureError)):
        heads.parse_head(data)


def _signed(*fields: object) -> bytes:
    return statements.make_statement(lineage.key(0), heads.DOMAIN, encoding.pack(list(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((2, bytes(32), 0, bytes(32), 1, []), id="version 2"),
        pytest.param((1, bytes(31), 0, bytes(32), 1, []), id="a short slot"),
        pytest.param((1, bytes(32), -1, bytes(32), 1, []), id="a negative number"),
        pytest.param((1, bytes(32), 0, bytes(32), -1, []), id="a negative time"),
        pytest.param((1, bytes(32), 0, bytes(33), 1, []), id="a long entry id"),
        pytest.param((1, bytes(32), 0, bytes(32), 1, [bytes(32)] * 2), id="a denied key twice"),
        pytest.param(
            (1, bytes(32), 0, bytes(32), 1, [b"\2" * 32, b"\1" * 32]), id="denied out of order"
        ),
        pytest.param(
            (1, bytes(32), 0, bytes(32), 1, [i.to_bytes(32, "big") for i in range(257)]),
            id="257 denied keys",
        ),
        pytest.param((1, bytes(32), 0, bytes(32), 1), id="a field missing"),
        pytest.param((1, bytes(32), 0, bytes(32), 1, [], 0), id="a field more"),
    ],
)
def test_a_head_of_another_form_is_malformed(fields: tuple[object, ...]) -> None:
    heads.parse_head(_signed(1, bytes(32), 0, bytes(32), 1, []))
    with pytest.raises(MalformedError):
        heads.parse_head(_signed(*fields))


def test_a_full_head_fits_its_limit() -> None:
    full = [KeyId(i.to_bytes(32, "big")) for i in range(heads.MAX_DENIED)]
    data = lineage.head(lineage.genesis(), 0, denied=full, time=2**63 - 1)
    assert len(data) <= heads.MAX_HEAD
    with pytest.raises(MalformedError):
        lineage.head(lineage.genesis(), 0, denied=[*full, kid(0)])


def test_a_signature_of_another_purpose_is_none() -> None:
    body, (spki, _) = msgpack.unpackb(lineage.head(lineage.genesis(), 0))
    domain = statements.Domain(heads.DOMAIN.body, b"anchorline-bundle-sig-v1\0")
    _, (_, signature) = msgpack.unpackb(statements.make_statement(lineage.key(0), domain, body))
    with pytest.raises(SignatureError):
        heads.parse_head(encoding.pack([body, [spki, signature]]))


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [(100, None, 100), (100, 99, 100), (100, 100, 101), (100, 5000, 5001)],
)
def test_a_writer_never_goes_back(now: int, last: int | None, expected: int) -> None:
    assert heads.next_time(now, last) == expected
