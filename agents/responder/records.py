"""What a responder remembers, and the ports through which it does.

A server keeps these in its database, a zone server in one append-only log; the code
between them and the clients sees three ports and does not know which.

1. An issue is recorded before its certificate leaves (`IssuanceRecord.record` returns
   when the record is durable). A crash before that has issued nothing that anybody holds.
2. Ids are the bytes themselves: a component id has 16, a KeyID 32, a nonce 32.
3. Dates are aware and in UTC. A store keeps whole seconds: a date read back is the one
   written, cut to its second.
4. A row of the registry and an acknowledgement replace the one of the same component.
   Of acknowledgements one per component and slot is kept: the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

__all__ = [
    "AckRecord",
    "AckStore",
    "ClientRecord",
    "Credential",
    "IssuanceRecord",
    "IssuedRecord",
    "RegistryStore",
]


class IssuedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was signed here (A6: counted per issuing key)."""

    serial: int
    """Its serial number; up to 20 bytes, as RFC 5280 allows."""
    kind: str
    """The text of a `pki.certificates.Kind`, such as `client-tls`."""
    holder: bytes
    """Component id of the holder, 16 bytes."""
    key_id: bytes
    """KeyID of the certified key, 32 bytes."""
    issuer: bytes
    """KeyID of the key that signed, 32 bytes."""
    root: bytes
    """KeyID of the root at the end of the chain, 32 bytes."""
    not_before: datetime
    not_after: datetime
    at: datetime
    """When it was signed; policy time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """What a responder knows of one client (F3)."""

    id: bytes
    """Component id, 16 bytes."""
    host: str
    """The host name that the client gave."""
    claimed: str
    """The address at which it says that it listens."""
    seen: str
    """The address from which its registration came."""
    port: int
    """The port on which it listens for its backward neighbour."""
    protocol: int
    version: str
    last_registration: datetime | None
    """None: enrolled, and not yet registered."""
    key_not_after: datetime | None
    root: bytes | None
    """KeyID of the root its certificate ends at, 32 bytes."""
    responder: bytes
    """Component id of the responder that it registers with, 16 bytes."""
    token_out: bytes | None
    """What it was first given for `token_shown`; all others are made with it (`tokens`)."""
    token_shown: bytes | None
    """The token that it showed last: still good, for an answer can be lost."""
    lost_at: datetime | None
    """When a neighbour reported it unreachable, if it has not registered since."""
    first_seen: datetime


class Credential(NamedTuple):
    """One certificate that an acknowledging component holds."""

    kind: str
    key_id: bytes
    root: bytes
    not_after: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AckRecord:
    """A component's signed word that it has entry `n` of a slot (*Catching up* 3)."""

    component: bytes
    """Component id, 16 bytes."""
    slot: bytes
    """Entry id of the slot's GENESIS, 32 bytes."""
    n: int
    entry_id: bytes
    """Id of entry `n`, 32 bytes."""
    spki: bytes
    """The identity key; its KeyID begins with `component`."""
    signature: bytes
    role: str
    credentials: tuple[Credential, ...]
    """What it held when it acknowledged; said by it, covered by its link, not by `signature`."""
    at: datetime
    """When it arrived here; policy time."""


class IssuanceRecord(Protocol):
    """Where issues are recorded before they take effect."""

    async def record(self, issued: IssuedRecord) -> None:
        """Record an issue; returns when it is durable.

        Raises:
            StateError: it could not be made durable; the certificate must not leave.
        """


class RegistryStore(Protocol):
    """Where the registry of clients outlives the process."""

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        """Keep these rows, each instead of the one with its id; durable on return."""

    async def load(self) -> list[ClientRecord]:
        """Every row, ordered by id."""


class AckStore(Protocol):
    """Where acknowledgements outlive the process."""

    async def save_ack(self, ack: AckRecord) -> None:
        """Keep it instead of the last of its component and slot; durable on return."""

    async def load_acks(self) -> list[AckRecord]:
        """Every acknowledgement kept, ordered by component and slot."""
