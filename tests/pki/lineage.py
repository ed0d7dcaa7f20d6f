"""Ledgers for tests: honest ones by the writers, and entries as a thief would write them.

Keys are numbered. Key i is the root at place i of the honest lineage; `ALIEN` and above are
nobody's. They are derived from their number, and sign without randomness, so the same test has
the same bytes every time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from pki import certificates, encoding, entries, heads, keys, ledger
from pki.keys import KeyId
from pki.ledger import Chain

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEPLOYMENT = bytes(range(16))
AUDIT = bytes(32)
ALIEN = 1000


class NumberedKey(ec.EllipticCurvePrivateKey):
    """A key that is derived from a number, with the deterministic signatures of RFC 6979."""

    def __init__(self, number: int) -> None:
        self._key = ec.derive_private_key(number + 1, ec.SECP256R1())

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        return self._key.exchange(algorithm, peer_public_key)

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        return self._key.private_numbers()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        return self._key.private_bytes(encoding, format, encryption_algorithm)

    def __copy__(self) -> "NumberedKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "NumberedKey":
        return self


@cache
def key(number: int) -> NumberedKey:
    return NumberedKey(number)


@cache
def kid(number: int) -> KeyId:
    return keys.key_id(key(number).public_key())


def kids(numbers: Sequence[int]) -> list[KeyId]:
    return [kid(number) for number in numbers]


@cache
def root(number: int, place: int) -> bytes:
    return certificates.make_root(key(number), "s.example", place, NOW, 1 + place)


@cache
def genesis(deployment: bytes = DEPLOYMENT) -> Chain:
    following = kids(range(1, 1 + entries.DEPTH))
    return ledger.make_genesis(root(0, 0), key(0), following, deployment, 1_000, AUDIT)


@cache
def _numbers() -> dict[KeyId, int]:
    return {kid(number): number for number in [*range(256), *range(ALIEN, ALIEN + 16)]}


def number_of(key_id: KeyId) -> int:
    """The number of a key."""
    return _numbers()[key_id]


def rotate(chain: Chain, *, more: int | None = None) -> Chain:
    """The honest next root; or, with another `more`, what its two signers could have written."""
    place = len(chain.roots)
    further = place + entries.DEPTH if more is None else more
    new, current = number_of(chain.state.next[0]), number_of(chain.current_root.key_id)
    return ledger.make_rotate(
        chain, root(new, place), key(current), key(new), kid(further), 1_000 + place, AUDIT
    )


def revoke(chain: Chain, *numbers: int) -> Chain:
    current = number_of(chain.current_root.key_id)
    return ledger.make_revoke(chain, kids(numbers), key(current), 2_000, AUDIT)


def honest(roots: int, *, revoked: Sequence[int] = ()) -> Chain:
    """A chain of so many roots, and one REVOKE of those given, if any."""
    chain = genesis()
    for _ in range(roots - 1):
        chain = rotate(chain)
    return revoke(chain, *revoked) if revoked else chain


def raw_body(chain: Chain | None, kind: int, payload: object, **fields: object) -> bytes:
    """A body that follows a chain, each field as given, without any check."""
    values: dict[str, object] = {
        "version": 1,
        "kind": kind,
        "n": 0 if chain is None else chain.last.n + 1,
        "previous": b"" if chain is None else chain.last.id,
        "time": 5,
        "audit": AUDIT,
        "payload": payload,
    }
    return encoding.pack(list((values | fields).values()))


def raw_entry(body: bytes, signers: Sequence[int]) -> bytes:
    """An entry with this body, signed by whomever."""
    entry_id = entries.entry_id(body)
    signatures = [
        [
            keys.spki(key(n).public_key()),
            keys.sign(key(n), entries.DOMAIN.signature, entry_id),
        ]
        for n in signers
    ]
    return encoding.pack([body, signatures])


def forge_rotate(
    chain: Chain, number: int, signers: Sequence[int], *, more: int, **fields: object
) -> bytes:
    """A ROTATE to key `number`, signed by whomever."""
    payload = [root(number, len(chain.roots)), kid(more)]
    return raw_entry(raw_body(chain, 1, payload, **fields), signers)


def forge_revoke(chain: Chain, numbers: Sequence[int], signers: Sequence[int]) -> bytes:
    """A REVOKE signed by whomever."""
    return raw_entry(raw_body(chain, 2, kids(numbers)), signers)


def head(
    chain: Chain,
    signer: int,
    *,
    time: int = 10_000,
    denied: Sequence[KeyId] = (),
    n: int | None = None,
    entry_id: bytes | None = None,
) -> bytes:
    """A head of the end of a chain, or of another place, signed by whomever."""
    return heads.make_head(
        key(signer),
        slot=chain.slot,
        n=chain.last.n if n is None else n,
        entry_id=chain.last.id if entry_id is None else entry_id,
        time=time,
        denied=denied,
    )


def twin(signature: bytes) -> bytes:
    """The other valid ECDSA signature (r, order - s) of the same message."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = utils.decode_dss_signature(signature)
    return utils.encode_dss_signature(r, order - s)
