"""The private keys of one component, in one sealed file.

Keys are made here and never leave (A7). The file holds, sealed under a key file that lies
beside it with mode 0600:

- the *identity* key, made once: its hash is the component's id;
- one *credential* a kind: the key in use, its chain, and the renewal window it came with;
- at most one *prepared* key a kind: generated, persisted, and waiting for its certificate;
- on a server, the private halves of its current root and the one before.

Make before break: `prepare` persists the new key before a request for it leaves, and a
request that is repeated after a crash is for the same key. `activate` replaces key and chain
in one write; until then the old credential is the one in use.

Every change is one atomic write of the whole file: after a crash the file is the old one or
the new one (C8).
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from agents.runtime.errors import StateError
from agents.runtime.files import Files
from pki import certificates, encoding, keys, keystore
from pki.certificates import Facts, Kind
from pki.errors import DamagedError, MalformedError, SealError
from pki.keys import KeyId, PrivateKey

__all__ = ["Credential", "Keyring"]

VERSION = 1
MAX_FILE = 1 << 20
KEY_FILE_BYTES = 32
SHORTEST_CHAIN = 2
"""A leaf and its root."""
MAX_WINDOW = 1 << 31
"""Seconds of a renewal window: 68 years, more than any issuer gives."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A key with the chain that certifies it."""

    kind: Kind
    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...]
    """DER, leaf first, root last."""
    window: timedelta
    """The renewal window that its issuer gave with it."""

    @property
    def leaf(self) -> Facts:
        """What the certificate of this key says."""
        return certificates.read(self.chain[0])

    @property
    def root(self) -> KeyId:
        """KeyID of the root at the end of the chain."""
        return certificates.read(self.chain[-1]).key_id

    @property
    def issuer_id(self) -> bytes | None:
        """Component id of the responder whose client CA signed it; None under a root."""
        name = certificates.read(self.chain[1]).name
        return None if name is None else name.id


@dataclass(frozen=True, slots=True)
class _Content:
    identity: PrivateKey = field(repr=False)
    credentials: dict[Kind, Credential]
    prepared: dict[Kind, PrivateKey] = field(repr=False)
    roots: dict[KeyId, PrivateKey] = field(repr=False)


class Keyring:
    """Holds and persists the private keys of one component. Not safe for concurrent use.

    Args:
        path: the sealed file, such as `pki.db`.
        files: where it lies.
        random: gives as many random bytes as it is asked for.
    """

    def __init__(
        self,
        path: Path,
        files: Files,
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._path = path
        self._files = files
        self._random = random
        self._key_path = path.with_suffix(".key")
        self._unlock, content = self._open()
        self._unsure = False
        """Whether the disk may hold what was to be written last, and could not be."""
        self._hold(content)

    @property
    def identity(self) -> PrivateKey:
        """The identity key."""
        return self._content.identity

    @property
    def identity_spki(self) -> bytes:
        """The public half of the identity key, DER."""
        return self._identity_spki

    @property
    def id(self) -> bytes:
        """The component's id: 16 bytes, from its identity key (F1)."""
        return self._id

    def credential(self, kind: Kind) -> Credential | None:
        """The credential of a kind that is in use."""
        return self._content.credentials.get(kind)

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """Every credential in use."""
        return tuple(self._content.credentials.values())

    def prepare(self, kind: Kind) -> PrivateKey:
        """A new key of a kind, persisted; the same one until it is activated."""
        held = self._content.prepared.get(kind)
        if held is not None:
            return held
        key = keys.generate()
        self._save(replace(self._content, prepared={**self._content.prepared, kind: key}))
        return key

    def activate(self, kind: Kind, chain: tuple[bytes, ...], window: timedelta) -> Credential:
        """Put the prepared key of a kind into use under this chain.

        Raises:
            StateError: no prepared key is the one that the chain certifies.
        """
        key = self._content.prepared.get(kind)
        if key is None or keys.key_id(key.public_key()) != certificates.read(chain[0]).key_id:
            raise StateError(f"the certificate is not for the prepared {kind} key")
        credential = Credential(kind, key, chain, window)
        prepared = {k: v for k, v in self._content.prepared.items() if k != kind}
        credentials = {**self._content.credentials, kind: credential}
        self._save(replace(self._content, credentials=credentials, prepared=prepared))
        return credential

    def root(self, key_id: KeyId) -> PrivateKey | None:
        """The private half of a root, where this is the server that holds it."""
        return self._content.roots.get(key_id)

    @property
    def root_ids(self) -> frozenset[KeyId]:
        """The roots whose private halves are held."""
        return frozenset(self._content.roots)

    def keep_roots(self, roots: dict[KeyId, PrivateKey]) -> None:
        """Hold these private roots and no other."""
        if self._unsure or roots.keys() != self._content.roots.keys():
            self._save(replace(self._content, roots=dict(roots)))

    def renew_identity(self) -> None:
        """Become another component: new identity, no credential (a cloned machine, F1)."""
        self._save(_Content(keys.generate(), {}, {}, {}))

    def _open(self) -> tuple[keystore.KeyFile, _Content]:
        if not self._files.exists(self._path):
            return self._create()
        if not self._files.exists(self._key_path):
            raise StateError(
                f"{self._path} is sealed, and its key file {self._key_path} is missing",
                hint="restore both files of the same backup; no new key is made over an old one",
            )
        secret = self._files.read_file(self._key_path, KEY_FILE_BYTES)
        try:
            unlock = keystore.KeyFile(secret)
            sealed = self._files.read_file(self._path, MAX_FILE)
            return unlock, _parse(keystore.open_sealed(sealed, unlock))
        except (DamagedError, MalformedError) as exc:
            raise StateError(
                f"{self._path} is damaged: {exc}",
                hint="restore it from a backup; what is no server starts over with an empty state"
                " directory: it enrols again with the bundle, as a new component",
            ) from exc
        except SealError as exc:
            raise StateError(
                f"{self._path} does not open with {self._key_path}: {exc}",
                hint="restore both files of the same backup",
            ) from exc

    def _create(self) -> tuple[keystore.KeyFile, _Content]:
        # A crash after the first write leaves a key file without a store: it is used again.
        if self._files.exists(self._key_path):
            secret = self._files.read_file(self._key_path, KEY_FILE_BYTES)
        else:
            secret = self._random(KEY_FILE_BYTES)
            self._files.write_atomic(self._key_path, secret)
        try:
            unlock = keystore.KeyFile(secret)
        except SealError as exc:
            raise StateError(
                f"{self._key_path} is no key file: {exc}",
                hint="remove it: there is no store that it belongs to",
            ) from exc
        content = _Content(keys.generate(), {}, {}, {})
        self._write(unlock, content)
        return unlock, content

    def _save(self, content: _Content) -> None:
        self._unsure = True
        self._write(self._unlock, content)
        self._unsure = False
        self._hold(content)

    def _hold(self, content: _Content) -> None:
        """Make this the content; the id that every link is asked by is computed once, here."""
        self._content = content
        self._identity_spki = keys.spki(content.identity.public_key())
        self._id = keys.component_id(self._identity_spki)

    def _write(self, unlock: keystore.KeyFile, content: _Content) -> None:
        sealed = keystore.seal(_serialize(content), unlock, random=self._random)
        self._files.write_atomic(self._path, sealed)


def _serialize(content: _Content) -> bytes:
    return encoding.pack(
        [
            VERSION,
            keys.private_bytes(content.identity),
            [
                [
                    c.kind.value,
                    keys.private_bytes(c.key),
                    list(c.chain),
                    int(c.window.total_seconds()),
                ]
                for c in content.credentials.values()
            ],
            [[k.value, keys.private_bytes(v)] for k, v in content.prepared.items()],
            [[k, keys.private_bytes(v)] for k, v in content.roots.items()],
        ]
    )


def _parse(data: bytes) -> _Content:
    version, identity, credentials, prepared, roots = encoding.as_list(
        encoding.unpack(data, max_bytes=MAX_FILE), length=5, what="keyring"
    )
    if version != VERSION:
        raise MalformedError(f"keyring of version {version!r}")
    return _Content(
        keys.load_private(encoding.as_bytes(identity, what="identity key")),
        {c.kind: c for c in map(_credential, encoding.as_list(credentials, what="credentials"))},
        dict(map(_prepared, encoding.as_list(prepared, what="prepared keys"))),
        dict(map(_root, encoding.as_list(roots, what="roots"))),
    )


def _credential(item: object) -> Credential:
    kind, key, certs, seconds = encoding.as_list(item, length=4, what="credential")
    chain = tuple(
        encoding.as_bytes(c, what="certificate") for c in encoding.as_list(certs, what="chain")
    )
    if len(chain) < SHORTEST_CHAIN:
        raise MalformedError(f"chain of {len(chain)} certificates")
    for der in chain:
        certificates.read(der)
    window = encoding.as_int(seconds, what="window")
    if not 0 <= window <= MAX_WINDOW:
        raise MalformedError(f"window of {window} seconds")
    return Credential(
        _kind(kind),
        keys.load_private(encoding.as_bytes(key, what="key")),
        chain,
        timedelta(seconds=window),
    )


def _kind(value: object) -> Kind:
    text = encoding.as_text(value, what="kind")
    if text not in set(Kind):
        raise MalformedError(f"no kind of key {text[:40]!r}")
    return Kind(text)


def _prepared(item: object) -> tuple[Kind, PrivateKey]:
    kind, key = encoding.as_list(item, length=2, what="prepared key")
    return _kind(kind), keys.load_private(encoding.as_bytes(key, what="key"))


def _root(item: object) -> tuple[KeyId, PrivateKey]:
    key_id, key = encoding.as_list(item, length=2, what="root")
    return KeyId(encoding.as_bytes(key_id, length=32, what="KeyID")), keys.load_private(
        encoding.as_bytes(key, what="key")
    )
