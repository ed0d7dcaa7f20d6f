"""The init bundle: what a new component is given so that it knows whom to believe.

    bundle    = [body as bin, [spki, sig]]
    body      = [version = 1, deployment (16), [[entries] per slot], [heads], [[name, text], ...]]

It holds public things only. It is checked against itself: each chain is valid, and the current
root of its first slot has signed it. So damage is found; a bundle that was replaced as a whole
is told by its deployment fingerprint, which people compare.

Opening one, in this order:

1. size        at most `MAX_BUNDLE` bytes.
2. signature   of the key in it, over the digest of the body.
3. form        canonical, of the known version; 1 to 8 slots; settings sorted, each name once.
4. chains      each entry valid in the state before it. An entry of an unknown kind cuts its
               chain there, and is reported; one that is invalid refuses the bundle.
5. deployment  every GENESIS names it, and no slot is there twice.
6. signer      the current root of the first slot.
7. heads       well-formed, of a slot of the bundle, at most one each. Whether one counts is
               decided where it is used.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pki import encoding, statements
from pki.entries import DEPLOYMENT_BYTES
from pki.errors import MalformedError, SignatureError
from pki.heads import parse_head
from pki.keys import KeyId, PrivateKey
from pki.ledger import MAX_CHAIN, Chain, Problem, read_chain

__all__ = [
    "MAX_BUNDLE",
    "MAX_SLOTS",
    "Bundle",
    "deployment_fingerprint",
    "make_bundle",
    "open_bundle",
]

VERSION: Final = 1
MAX_SLOTS: Final = 8
MAX_BUNDLE: Final = MAX_SLOTS * MAX_CHAIN + 1024 * 1024
"""Bytes of a bundle: eight full slots, and 1 MiB for all else."""
MAX_SETTINGS: Final = 256
MAX_NAME: Final = 64
MAX_TEXT: Final = 4096
"""Characters of a setting's name and text."""

DOMAIN: Final = statements.Domain(b"anchorline-bundle-v1\0", b"anchorline-bundle-sig-v1\0")
FINGERPRINT_DOMAIN: Final = b"anchorline-deployment-v1\0"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that has been opened: it is consistent with itself."""

    deployment: bytes
    chains: tuple[Chain, ...] = field(repr=False)
    """One chain a slot; the first is that of the server which made the bundle."""
    heads: tuple[bytes, ...] = field(repr=False)
    settings: Mapping[str, str]
    signer: KeyId
    problems: tuple[Problem, ...] = ()
    """Where a chain was cut, because this program is older than the bundle."""

    @property
    def slots(self) -> list[list[bytes]]:
        """The entries of each slot."""
        return [list(chain.encoded) for chain in self.chains]

    @property
    def fingerprint(self) -> str:
        """What people compare, hexadecimal."""
        return deployment_fingerprint(self.deployment, [chain.slot for chain in self.chains])


def deployment_fingerprint(deployment: bytes, slots: Iterable[bytes]) -> str:
    """SHA-256 of a deployment and of its slots' ids, hexadecimal."""
    joined = b"".join(sorted(slots))
    return hashlib.sha256(FINGERPRINT_DOMAIN + deployment + joined).hexdigest()


def make_bundle(
    key: PrivateKey,
    chains: Sequence[Chain],
    heads: Sequence[bytes] = (),
    settings: Mapping[str, str] | None = None,
) -> bytes:
    """Make a bundle, and open it once to be sure that others can.

    Args:
        key: Key of the current root of the first chain.
        chains: The chains of the deployment, own slot first.
        heads: The last counted head of each slot, where there is one.
        settings: Texts by name, applied where the bundle is imported.

    Raises:
        MalformedError, SignatureError: Nobody could open it.
    """
    if not chains:
        raise MalformedError("bundle without a slot")
    pairs = sorted((settings or {}).items())
    body = encoding.pack(
        [
            VERSION,
            chains[0].deployment,
            [list(chain.encoded) for chain in chains],
            list(heads),
            [list(pair) for pair in pairs],
        ]
    )
    data = statements.make_statement(key, DOMAIN, body)
    open_bundle(data)
    return data


def open_bundle(data: bytes) -> Bundle:
    """Verify and read a bundle.

    Raises:
        MalformedError: Cut, not of this format, or inconsistent.
        SignatureError: Altered, or signed by another key than its own current root.
    """
    max_body = MAX_BUNDLE - statements.OVERHEAD
    try:
        statement = statements.open_statement(data, DOMAIN, max_body=max_body, what="bundle")
    except MalformedError as exc:
        raise MalformedError(f"it is no init bundle: {exc}") from exc
    items = encoding.as_list(
        encoding.unpack(statement.body, max_bytes=max_body), length=5, what="bundle"
    )
    version = encoding.as_int(items[0], what="version")
    if version != VERSION:
        raise MalformedError(f"bundle of version {version}")
    deployment = encoding.as_bytes(items[1], length=DEPLOYMENT_BYTES, what="deployment")
    slots = encoding.as_list(items[2], what="slots")
    if not 1 <= len(slots) <= MAX_SLOTS:
        raise MalformedError(f"bundle of {len(slots)} slots, expected 1 to {MAX_SLOTS}")
    settings = _read_settings(items[4])
    chains, problems = _read_chains(slots)
    _check_deployment(deployment, chains)
    if statement.key_id != chains[0].current_root.key_id:
        raise SignatureError(f"bundle signed by {statement.key_id.hex()}, not by its current root")
    heads = _read_heads(items[3], {chain.slot for chain in chains})
    return Bundle(deployment, chains, heads, settings, statement.key_id, problems)


def _read_chains(slots: Sequence[object]) -> tuple[tuple[Chain, ...], tuple[Problem, ...]]:
    chains: list[Chain] = []
    problems: list[Problem] = []
    for slot in slots:
        entries = [
            encoding.as_bytes(entry, what="entry") for entry in encoding.as_list(slot, what="slot")
        ]
        chain, problem = read_chain(entries)
        if chain is None or (problem is not None and not problem.unknown):
            raise MalformedError(f"chain of the bundle is not valid: {problem}")
        chains.append(chain)
        if problem is not None:
            problems.append(problem)
    return tuple(chains), tuple(problems)


def _check_deployment(deployment: bytes, chains: Sequence[Chain]) -> None:
    for chain in chains:
        if chain.deployment != deployment:
            raise MalformedError(f"slot {chain.slot.hex()} is of another deployment")
    if len({chain.slot for chain in chains}) != len(chains):
        raise MalformedError("slot twice in a bundle")


def _read_heads(value: object, slots: set[bytes]) -> tuple[bytes, ...]:
    heads: list[bytes] = []
    for item in encoding.as_list(value, what="heads"):
        data = encoding.as_bytes(item, what="head")
        slot = parse_head(data).head.slot
        if slot not in slots:
            raise MalformedError(f"head of slot {slot.hex()}: not in the bundle, or twice")
        slots.remove(slot)
        heads.append(data)
    return tuple(heads)


def _read_settings(value: object) -> dict[str, str]:
    pairs: list[tuple[str, str]] = []
    for item in encoding.as_list(value, what="settings"):
        name, text = encoding.as_list(item, length=2, what="setting")
        pairs.append(
            (encoding.as_text(name, what="setting"), encoding.as_text(text, what="setting"))
        )
    names = [name for name, _ in pairs]
    if names != sorted(set(names)) or len(names) > MAX_SETTINGS:
        raise MalformedError("settings unsorted, repeated or too many")
    for name, text in pairs:
        if not 0 < len(name) <= MAX_NAME or len(text) > MAX_TEXT:
            raise MalformedError(f"setting {name[:MAX_NAME]!r} of {len(text)} characters")
    return dict(pairs)
