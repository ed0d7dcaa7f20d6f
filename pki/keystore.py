r"""The sealed container of `pki.db` and `standby.db`: bytes in, bytes out.

    file    = "anchorline-seal\0" || header length (4, big-endian) || header || SHA-256 of all
              before it || sealed content
    header  = [version = 1, [slot, ...], nonce (12)]
    slot    = ["keyfile", salt (32), nonce (12), wrapped data key (48)]
            | ["password", [salt (16), iterations, lanes, memory KiB], nonce (12), wrapped (48)]

The content is sealed with AES-256-GCM under a random *data key*, the header being authenticated
with it. Each slot holds the data key, sealed under a key of its own: HKDF-SHA256 of a key file,
or Argon2id of a password. So there can be several ways to one content, and each file has a data
key and nonces that are never used again.

A wrong key and damage are told apart, because the remedies are opposite:

1. form      magic, lengths and header are as written, or damaged.
2. digest    the SHA-256 over the header is right, or damaged: the slots are as written.
3. slots     one of them opens with this key, or it is the wrong key.
4. content   opens under the data key, or damaged.

The digest is no protection: whoever can write the file can compute it. It only makes sure that
a slot that does not open is not a flipped bit in that slot. A file that somebody has replaced
altogether is whole, and opens with his key only: that is a wrong key too.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pki import encoding
from pki.errors import DamagedError, MalformedError, WrongKeyError

__all__ = [
    "KEY_FILE_BYTES",
    "MAX_CONTENT",
    "Cost",
    "KeyFile",
    "Password",
    "Random",
    "Unlock",
    "open_sealed",
    "seal",
]

Random: TypeAlias = Callable[[int], bytes]
"""Gives as many random bytes as it is asked for, such as `secrets.token_bytes`."""

KEY_FILE_BYTES: Final = 32
MAX_CONTENT: Final = 16 << 20
"""Bytes of content; a server's keys are about 20 KiB."""

_MAGIC: Final = b"anchorline-seal\0"
_VERSION: Final = 1
_LENGTH_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
_MAX_HEADER: Final = 4096
_MAX_SLOTS: Final = 8
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SALT_BYTES: Final = {"keyfile": 32, "password": 16}
_SLOT_DOMAIN: Final = b"anchorline-seal-slot-v1\0"
_CONTENT_DOMAIN: Final = b"anchorline-seal-content-v1\0"


@dataclass(frozen=True, slots=True)
class Cost:
    """What Argon2id spends on one guess of a password."""

    iterations: int = 3
    lanes: int = 4
    memory: int = 64 * 1024
    """KiB. With three iterations and four lanes: RFC 9106, section 4, second choice."""


_MAX_COST: Final = Cost(iterations=64, lanes=64, memory=1024 * 1024)
"""What a file may ask for: it may be hostile, and is asked before anything is verified."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a key file: 32 random bytes.

    Raises:
        WrongKeyError: Another length: that file opens nothing.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_FILE_BYTES:
            raise WrongKeyError(f"key file of {len(self.secret)} bytes, expected {KEY_FILE_BYTES}")


@dataclass(frozen=True, slots=True)
class Password:
    """A password, and what one guess at it costs in a new file. Text is taken as UTF-8.

    Raises:
        ValueError: An empty one.
    """

    text: str = field(repr=False)
    cost: Cost = Cost()

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("empty password")


Unlock: TypeAlias = KeyFile | Password
"""What opens a container."""


@dataclass(frozen=True, slots=True)
class _Slot:
    sort: str
    salt: bytes
    cost: Cost | None
    nonce: bytes
    wrapped: bytes

    def encode(self) -> list[object]:
        cost = self.cost
        salt = [self.salt, cost.iterations, cost.lanes, cost.memory] if cost else self.salt
        return [self.sort, salt, self.nonce, self.wrapped]


def seal(content: bytes, *unlocks: Unlock, random: Random) -> bytes:
    """Seal a content; each of the keys will open it.

    Args:
        content: What to seal, at most `MAX_CONTENT` bytes.
        unlocks: Key files and passwords, from one to eight.
        random: Source of the data key, salts and nonces.

    Raises:
        ValueError: Too large a content, or no key, or too many.
    """
    if len(content) > MAX_CONTENT:
        raise ValueError(f"content of {len(content)} bytes, at most {MAX_CONTENT}")
    if not 1 <= len(unlocks) <= _MAX_SLOTS:
        raise ValueError(f"{len(unlocks)} keys, from 1 to {_MAX_SLOTS}")
    data_key = random(_KEY_BYTES)
    nonce = random(_NONCE_BYTES)
    slots = [_fill(unlock, data_key, random) for unlock in unlocks]
    header = encoding.pack([_VERSION, [slot.encode() for slot in slots], nonce])
    head = _MAGIC + len(header).to_bytes(_LENGTH_BYTES) + header
    sealed = AESGCM(data_key).encrypt(nonce, content, _CONTENT_DOMAIN + head)
    return head + hashlib.sha256(head).digest() + sealed


def _fill(unlock: Unlock, data_key: bytes, random: Random) -> _Slot:
    cost = unlock.cost if isinstance(unlock, Password) else None
    sort = _sort(unlock)
    salt, nonce = random(_SALT_BYTES[sort]), random(_NONCE_BYTES)
    key = _derive(unlock, salt, cost)
    return _Slot(sort, salt, cost, nonce, AESGCM(key).encrypt(nonce, data_key, _SLOT_DOMAIN))


def open_sealed(data: bytes, unlock: Unlock) -> bytes:
    """Open what `seal` made.

    Raises:
        DamagedError: The file is not what was written; restore a backup.
        WrongKeyError: The file is whole, and this does not open it.
    """
    head, nonce, slots, sealed = _parse(data)
    data_key = _unwrap(slots, unlock)
    try:
        return AESGCM(data_key).decrypt(nonce, sealed, _CONTENT_DOMAIN + head)
    except InvalidTag as exc:
        raise DamagedError("sealed content is not what was written") from exc


def _unwrap(slots: Sequence[_Slot], unlock: Unlock) -> bytes:
    for slot in slots:
        if slot.sort != _sort(unlock):
            continue
        try:
            key = _derive(unlock, slot.salt, slot.cost)
            return AESGCM(key).decrypt(slot.nonce, slot.wrapped, _SLOT_DOMAIN)
        except InvalidTag:
            continue
    sorts = " or ".join(sorted({slot.sort for slot in slots}))
    raise WrongKeyError(f"does not open with this {_sort(unlock)}, sealed with a {sorts}")


def _sort(unlock: Unlock) -> str:
    return "keyfile" if isinstance(unlock, KeyFile) else "password"


def _derive(unlock: Unlock, salt: bytes, cost: Cost | None) -> bytes:
    match unlock:
        case KeyFile(secret):
            derivation = HKDF(hashes.SHA256(), _KEY_BYTES, salt, _SLOT_DOMAIN)
            return derivation.derive(secret)
        case Password(text):
            assert cost is not None  # a slot for a password has it
            return Argon2id(
                salt=salt,
                length=_KEY_BYTES,
                iterations=cost.iterations,
                lanes=cost.lanes,
                memory_cost=cost.memory,
            ).derive(text.encode())


def _parse(data: bytes) -> tuple[bytes, bytes, list[_Slot], bytes]:
    start = len(_MAGIC) + _LENGTH_BYTES
    if not data.startswith(_MAGIC):
        raise DamagedError(f"not a sealed file: begins with {data[: len(_MAGIC)]!r}")
    end = start + int.from_bytes(data[len(_MAGIC) : start])
    content = end + _DIGEST_BYTES
    if end > start + _MAX_HEADER or len(data) < content + _TAG_BYTES:
        raise DamagedError(f"sealed file of {len(data)} bytes is cut, or its header damaged")
    head = data[:end]
    if hashlib.sha256(head).digest() != data[end:content]:
        raise DamagedError("header of the sealed file is not what was written")
    try:
        nonce, slots = _parse_header(data[start:end])
    except MalformedError as exc:
        raise DamagedError(f"header of the sealed file: {exc}") from exc
    return head, nonce, slots, data[content:]


def _parse_header(header: bytes) -> tuple[bytes, list[_Slot]]:
    items = encoding.as_list(
        encoding.unpack(header, max_bytes=_MAX_HEADER), length=3, what="header"
    )
    version = encoding.as_int(items[0], what="version")
    if version != _VERSION:
        raise MalformedError(f"version {version}, expected {_VERSION}")
    slots = [_parse_slot(item) for item in encoding.as_list(items[1], what="slots")]
    if not 1 <= len(slots) <= _MAX_SLOTS:
        raise MalformedError(f"{len(slots)} slots")
    return encoding.as_bytes(items[2], length=_NONCE_BYTES, what="nonce"), slots


def _parse_slot(item: object) -> _Slot:
    sort, salt, nonce, wrapped = encoding.as_list(item, length=4, what="slot")
    sort = encoding.as_text(sort, what="sort of slot")
    cost: Cost | None = None
    if sort == "password":
        salt, *numbers = encoding.as_list(salt, length=4, what="password parameters")
        cost = _checked_cost(*(encoding.as_int(number, what="cost") for number in numbers))
    elif sort != "keyfile":
        raise MalformedError(f"slot of sort {sort[:40]!r}")
    return _Slot(
        sort,
        encoding.as_bytes(salt, length=_SALT_BYTES[sort], what="salt"),
        cost,
        encoding.as_bytes(nonce, length=_NONCE_BYTES, what="nonce of slot"),
        encoding.as_bytes(wrapped, length=_KEY_BYTES + _TAG_BYTES, what="wrapped key"),
    )


def _checked_cost(iterations: int, lanes: int, memory: int) -> Cost:
    cost = Cost(iterations, lanes, memory)
    fits = (
        1 <= iterations <= _MAX_COST.iterations
        and 1 <= lanes <= _MAX_COST.lanes
        and 8 * lanes <= memory <= _MAX_COST.memory
    )
    if not fits:
        raise MalformedError(f"password parameters out of range: {cost}")
    return cost
