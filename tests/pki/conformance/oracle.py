"""The trust ledger a second time: slow, obvious, and without a line of the first.

It reads msgpack by hand, recomputes everything from the GENESIS for every question, and keeps
nothing. It is written from docs/spec/ledger.md; where the two disagree, one of them is wrong.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID

P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


class BadError(Exception):
    """Not valid, for whatever reason."""


def need(holds: bool) -> None:
    if not holds:
        raise BadError


# Msgpack: arrays, integers, bin, str; each in its shortest form.


def value_at(data: bytes, at: int) -> tuple[object, int]:
    need(at < len(data))
    tag, at = data[at], at + 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if 0x90 <= tag <= 0x9F:
        return items_at(data, at, tag - 0x90)
    if 0xA0 <= tag <= 0xBF:
        return text(*take(data, at, tag - 0xA0))
    if tag in (0xC4, 0xC5, 0xC6):
        length, at = size_at(data, at, {0xC4: 1, 0xC5: 2, 0xC6: 4}[tag], 0)
        return take(data, at, length)
    if tag in (0xD9, 0xDA, 0xDB):
        length, at = size_at(data, at, {0xD9: 1, 0xDA: 2, 0xDB: 4}[tag], 32)
        return text(*take(data, at, length))
    if tag in (0xDC, 0xDD):
        raw, at = take(data, at, {0xDC: 2, 0xDD: 4}[tag])
        length = int.from_bytes(raw, "big")
        need(length >= {0xDC: 16, 0xDD: 2**16}[tag])
        return items_at(data, at, length)
    if tag in (0xCC, 0xCD, 0xCE, 0xCF):
        return size_at(data, at, {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}[tag], 128)
    if tag in (0xD0, 0xD1, 0xD2, 0xD3):
        width = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}[tag]
        raw, at = take(data, at, width)
        number = int.from_bytes(raw, "big", signed=True)
        shortest = number < -32 if width == 1 else number < -(2 ** (4 * width - 1))
        need(shortest)
        return number, at
    raise BadError


def take(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    need(at + length <= len(data))
    return data[at : at + length], at + length


def text(raw: bytes, at: int) -> tuple[object, int]:
    try:
        return raw.decode(), at
    except UnicodeDecodeError as exc:
        raise BadError from exc


def size_at(data: bytes, at: int, width: int, smallest: int) -> tuple[int, int]:
    raw, at = take(data, at, width)
    number = int.from_bytes(raw, "big")
    need(number >= (smallest if width == 1 else 2 ** (4 * width)))
    return number, at


def items_at(data: bytes, at: int, count: int) -> tuple[object, int]:
    need(count <= len(data))
    items = []
    for _ in range(count):
        item, at = value_at(data, at)
        items.append(item)
    return items, at


def read(data: bytes) -> list[object]:
    value, end = value_at(data, 0)
    need(end == len(data) and isinstance(value, list))
    assert isinstance(value, list)
    return value


# Keys and roots.


def signed(spki: bytes, signature: bytes, message: bytes) -> bool:
    if len(spki) != 91 or not spki.startswith(P256):
        return False
    try:
        key = load_der_public_key(spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def key_of_root(der: object, place: int) -> bytes:
    """The SubjectPublicKeyInfo of a root certificate that is good at this place."""
    need(isinstance(der, bytes))
    assert isinstance(der, bytes)
    try:
        certificate = x509.load_der_x509_certificate(der)
        public = certificate.public_key()
        certificate.verify_directly_issued_by(certificate)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as exc:
        raise BadError from exc
    need(certificate.public_bytes(Encoding.DER) == der)
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    need(len(spki) == 91 and spki.startswith(P256) and spki in der)
    need(len(names) == 1 and str(names[0].value).endswith(f" Root {place}"))
    return spki


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def ids(value: object) -> list[bytes]:
    need(isinstance(value, list))
    assert isinstance(value, list)
    for item in value:
        need(isinstance(item, bytes) and len(item) == 32)
    need(len(set(value)) == len(value))
    return value


# A chain.


@dataclass
class Sum:
    """What a chain adds up to."""

    entry_ids: list[bytes] = field(default_factory=list)
    spkis: list[bytes] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=list)
    next: list[bytes] = field(default_factory=list)
    revoked: set[bytes] = field(default_factory=set)


def is_natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def append(total: Sum, data: bytes) -> None:
    """Check one more entry and add it up; `total` is spoilt if it is not valid."""
    outer = read(data)
    need(len(outer) == 2)
    body, signatures = outer
    need(isinstance(body, bytes) and isinstance(signatures, list))
    assert isinstance(body, bytes)
    assert isinstance(signatures, list)
    for pair in signatures:
        need(isinstance(pair, list) and [type(item) for item in pair] == [bytes, bytes])
    entry_id = sha256(b"anchorline-ledger-v1\0" + body)
    fields = read(body)
    need(len(fields) == 7)
    version, kind, n, previous, time, audit, payload = fields
    need(type(version) is int and version == 1)
    need(is_natural(n) and n == len(total.entry_ids))
    need(previous == (total.entry_ids[-1] if total.entry_ids else b""))
    need(is_natural(time) and isinstance(audit, bytes) and len(audit) == 32)
    need(type(kind) is int and (kind == 0) == (n == 0) and isinstance(payload, list))
    assert isinstance(payload, list)
    needed = {0: genesis, 1: rotate, 2: revoke}.get(kind if isinstance(kind, int) else -1)
    need(needed is not None)
    assert needed is not None
    message = b"anchorline-ledger-sig-v1\0" + entry_id
    for signer in needed(total, payload):
        need(any(spki == signer and signed(spki, sig, message) for spki, sig in signatures))
    total.entry_ids.append(entry_id)


def genesis(total: Sum, payload: list[object]) -> list[bytes]:
    need(len(payload) == 5)
    deployment, der, following, k, recovery = payload
    need(isinstance(deployment, bytes) and len(deployment) == 16)
    spki = key_of_root(der, 0)
    total.next = list(ids(following))
    need(len(total.next) == 16)
    m = len(ids(recovery))
    need(type(k) is int)
    assert isinstance(k, int)
    need((k, m) == (0, 0) or 1 <= k <= m <= 16)
    total.spkis, total.roots = [spki], [sha256(spki)]
    need(total.roots[0] not in total.next)
    return [spki]


def rotate(total: Sum, payload: list[object]) -> list[bytes]:
    need(len(payload) == 2)
    der, more = payload
    need(isinstance(more, bytes) and len(more) == 32)
    assert isinstance(more, bytes)
    spki = key_of_root(der, len(total.roots))
    need(sha256(spki) == total.next[0])
    need(more not in total.roots and more not in total.next)
    current = total.spkis[-1]
    total.next = [*total.next[1:], more]
    total.spkis.append(spki)
    total.roots.append(sha256(spki))
    return [current, spki]


def revoke(total: Sum, payload: list[object]) -> list[bytes]:
    named = ids(payload)
    need(len(named) > 0)
    places = []
    for root in named:
        need(root in total.roots[:-1] and root not in total.revoked)
        places.append(total.roots.index(root))
    need(places == sorted(places))
    total.revoked = total.revoked | set(named)
    return [total.spkis[-1]]


def add_up(entries: list[bytes]) -> Sum:
    """What the longest valid beginning adds up to, computed from its first entry each time."""
    best = Sum()
    for length in range(1, len(entries) + 1):
        total = Sum()
        try:
            for data in entries[:length]:
                append(total, data)
        except BadError:
            break
        best = total
    return best


def replaces(ours: Sum, theirs: Sum) -> bool:
    """Rules 7 and 9."""
    if not theirs.entry_ids or ours.entry_ids[0] != theirs.entry_ids[0]:
        return False
    if ours.entry_ids == theirs.entry_ids:
        return False
    begins = theirs.entry_ids[: len(ours.entry_ids)] == ours.entry_ids
    supersedes = theirs.roots[: len(ours.roots) + 1] == [*ours.roots, ours.next[0]]
    return begins or supersedes


def judge_head(ours: Sum, last_body: bytes | None, last_time: int | None, data: bytes) -> str:
    """Rule 12: counted, same, behind, fork or ignored."""
    try:
        body, spki, (slot, n, entry_id, time) = open_head(data)
    except BadError:
        return "ignored"
    if slot != ours.entry_ids[0] or n >= 1024:
        return "ignored"
    if n >= len(ours.entry_ids):
        return "behind"
    signer = sha256(spki)
    if ours.entry_ids[n] != entry_id:
        return "fork" if signer in ours.roots else "ignored"
    if n != len(ours.entry_ids) - 1 or signer != ours.roots[-1]:
        return "ignored"
    if body == last_body:
        return "same"
    return "counted" if last_time is None or time > last_time else "ignored"


def open_head(data: bytes) -> tuple[bytes, bytes, tuple[bytes, int, bytes, int]]:
    outer = read(data)
    need(len(outer) == 2)
    body, pair = outer
    need(isinstance(pair, list) and [type(item) for item in pair] == [bytes, bytes])
    need(isinstance(body, bytes))
    assert isinstance(body, bytes)
    assert isinstance(pair, list)
    digest = sha256(b"anchorline-head-v1\0" + body)
    need(signed(pair[0], pair[1], b"anchorline-head-sig-v1\0" + digest))
    fields = read(body)
    need(len(fields) == 6)
    version, slot, n, entry_id, time, denied = fields
    need(type(version) is int and version == 1 and is_natural(n) and is_natural(time))
    need(isinstance(slot, bytes) and len(slot) == 32)
    need(isinstance(entry_id, bytes) and len(entry_id) == 32)
    need(len(ids(denied)) <= 256 and ids(denied) == sorted(ids(denied)))
    assert isinstance(slot, bytes)
    assert isinstance(entry_id, bytes)
    assert isinstance(n, int)
    assert isinstance(time, int)
    return body, pair[0], (slot, n, entry_id, time)
