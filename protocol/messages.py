"""What components say to each other: one frozen struct a message.

A message is a request, an answer, or neither (HELLO, CLOSE). A request carries in `call`
the number that its sender chose; the answer repeats it. `trace` is the same on every
component that a matter passes, so that one search shows its whole way.

`None` in an optional field is left out on the wire: a message grows by what it says.
Times are Unix seconds of policy time; `retry_after`, `spread` and `next` are seconds of
network time. KeyIDs, slots, entry ids and nonces are 32 bytes, component ids 16.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.frames import FrameType

__all__ = [
    "MESSAGES",
    "TRACE_DIGITS",
    "VERSION",
    "Ack",
    "ClientRow",
    "Close",
    "Credential",
    "Done",
    "Enrol",
    "HeadNotice",
    "Hello",
    "Issued",
    "LedgerEntries",
    "LedgerGet",
    "Message",
    "Neighbour",
    "Nonce",
    "NonceGet",
    "PeerHello",
    "Pending",
    "Ping",
    "Pong",
    "Refused",
    "Register",
    "Registered",
    "Relay",
    "Relayed",
    "Report",
    "Settings",
]

VERSION = 1
"""The protocol version that HELLO carries."""

Trace = Annotated[str, Meta(max_length=32)]
TRACE_DIGITS = "0123456789abcdef"
"""What a trace consists of. The codec looks: a pattern in the type costs several times as much."""
Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Time = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Up to the end of the year 9999: no calendar has a later date."""
Port = Annotated[int, Meta(ge=0, le=65535)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
ComponentId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Sender = Annotated[bytes, Meta(max_length=16)]
Spki = Annotated[bytes, Meta(max_length=128)]
Signature = Annotated[bytes, Meta(max_length=128)]
Token = Annotated[bytes, Meta(max_length=64)]
Entry = Annotated[bytes, Meta(max_length=limits.MAX_ENTRY)]
Head = Annotated[bytes, Meta(max_length=limits.MAX_HEAD)]
Certificate = Annotated[bytes, Meta(max_length=limits.MAX_CERTIFICATE)]
Name = Annotated[str, Meta(max_length=limits.MAX_NAME)]
Text = Annotated[str, Meta(max_length=limits.MAX_TEXT)]
Word = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=limits.MAX_VALUE)]
Values = Annotated[dict[Name, Value], Meta(max_length=limits.MAX_SETTINGS)]


class Part(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A struct inside a message."""


class Message(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What every message has. `repr` shows no secret."""

    FRAME: ClassVar[FrameType]
    """The type byte of its frame."""
    ANSWERS: ClassVar[frozenset[type["Message"]]] = frozenset()
    """The types that may answer it; empty for what is no request."""
    SECRET: ClassVar[frozenset[str]] = frozenset()
    """Fields that no log may show."""

    trace: Trace = ""
    """Trace id, lower-case hex."""
    call: Number = 0
    """Number of the request; 0 for what is neither request nor answer."""

    def __repr__(self) -> str:
        shown = (
            f"{name}=(protected)" if name in self.SECRET else f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


# --- Any link


class Hello(Message, frozen=True):
    """First frame of a TLS client that shows no certificate: what the link is for."""

    FRAME: ClassVar[FrameType] = FrameType.HELLO
    link: Literal["discovery", "enrolment"]
    version: Number = VERSION


class Close(Message, frozen=True):
    """Last frame of a link: a `CloseCode`, and what belongs to it."""

    FRAME: ClassVar[FrameType] = FrameType.CLOSE
    code: Number
    text: Text = ""
    time: Time | None = None
    """The sender's clock, with EXPIRED and CLOCK."""
    retry_after: Seconds | None = None


class Pong(Message, frozen=True):
    """The answer to a `Ping`, with its id."""

    FRAME: ClassVar[FrameType] = FrameType.PONG
    id: Count


class Done(Message, frozen=True):
    """The request was carried out; there is nothing more to say."""

    FRAME: ClassVar[FrameType] = FrameType.DONE


class Refused(Message, frozen=True):
    """The request was understood and not carried out."""

    FRAME: ClassVar[FrameType] = FrameType.REFUSED
    reason: Word
    """One word for programs."""
    text: Text = ""
    """A sentence for people."""
    retry_after: Seconds | None = None
    """When asking again makes sense; `None`: not without a change."""


class Ping(Message, frozen=True):
    """Is somebody there; kept by id and repeated after a re-link until answered."""

    FRAME: ClassVar[FrameType] = FrameType.PING
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Pong, Refused})
    id: Count
    sender: Sender = b""


# --- Following the keys


class LedgerEntries(Message, frozen=True):
    """Entries of a slot from number `first`; empty where the slot is unknown."""

    FRAME: ClassVar[FrameType] = FrameType.LEDGER_ENTRIES
    slot: Digest
    first: Count
    entries: Annotated[list[Entry], Meta(max_length=limits.MAX_ENTRIES)]
    more: bool = False
    head: Head | None = None


class LedgerGet(Message, frozen=True):
    """What came after entry `n`, whose id is `entry_id`."""

    FRAME: ClassVar[FrameType] = FrameType.LEDGER_GET
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({LedgerEntries, Refused})
    slot: Digest
    n: Count
    entry_id: Digest


class HeadNotice(Message, frozen=True):
    """A HEAD, and over how long the renewals that follow a rotation are spread."""

    FRAME: ClassVar[FrameType] = FrameType.HEAD_NOTICE
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Done, Refused})
    head: Head
    spread: Seconds = 0.0


class Credential(Part, frozen=True):
    """One certificate that a component holds, as it says itself."""

    kind: Word
    key_id: Digest
    root: Digest
    """KeyID of the root at the end of its chain."""
    not_after: Time


class Ack(Message, frozen=True):
    """A component has followed to entry `n`: signed by its identity key, relayed unchanged."""

    FRAME: ClassVar[FrameType] = FrameType.ACK
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Done, Refused})
    slot: Digest
    n: Count
    entry_id: Digest
    spki: Spki
    signature: Signature
    credentials: Annotated[list[Credential], Meta(max_length=limits.MAX_CREDENTIALS)] = []


# --- Enrolment and renewal


class Nonce(Message, frozen=True):
    """32 bytes for one signed request."""

    FRAME: ClassVar[FrameType] = FrameType.NONCE
    nonce: Digest


class NonceGet(Message, frozen=True):
    """A nonce for a certificate of `kind`, for the identity key `spki`."""

    FRAME: ClassVar[FrameType] = FrameType.NONCE_GET
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Nonce, Refused})
    kind: Word
    spki: Spki


class Issued(Message, frozen=True):
    """A certificate with its whole chain, leaf first and root last."""

    FRAME: ClassVar[FrameType] = FrameType.ISSUED
    chain: Annotated[list[Certificate], Meta(min_length=1, max_length=limits.MAX_CHAIN)]
    window: Count = 0
    """Renewal window in seconds of policy time."""


class Pending(Message, frozen=True):
    """An administrator has to approve the identity key with this fingerprint first."""

    FRAME: ClassVar[FrameType] = FrameType.PENDING
    fingerprint: Word
    retry_after: Seconds


class Enrol(Message, frozen=True):
    """A certificate request, signed by the identity key."""

    FRAME: ClassVar[FrameType] = FrameType.ENROL
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Issued, Pending, Refused})
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret"})
    kind: Word
    csr: Certificate
    spki: Spki
    """The identity key."""
    nonce: Digest
    signature: Signature
    secret: Text | None = None
    """Registration secret, where the responder asks for one."""
    host: Name = ""


# --- Registration and the line of clients


class Neighbour(Part, frozen=True):
    """Where a neighbour listens."""

    id: ComponentId
    address: Name
    port: Port


class Registered(Message, frozen=True):
    """What a registered client needs to know now."""

    FRAME: ClassVar[FrameType] = FrameType.REGISTERED
    SECRET: ClassVar[frozenset[str]] = frozenset({"token"})
    token: Token
    observed: Name
    forward: Neighbour | None = None
    backward: Neighbour | None = None
    revision: Count = 0
    leader: bool = False
    settings: Values = {}
    head: Head | None = None
    next: Seconds | None = None
    spread: Seconds = 0.0


class Register(Message, frozen=True):
    """A client tells what changed; `None` is unchanged, `full` says everything."""

    FRAME: ClassVar[FrameType] = FrameType.REGISTER
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Registered, Refused})
    SECRET: ClassVar[frozenset[str]] = frozenset({"token"})
    host: Name | None = None
    version: Name | None = None
    port: Port | None = None
    address: Name | None = None
    """The address it claims to listen on."""
    token: Token = b""
    full: bool = False
    root: Digest | None = None
    key_not_after: Time | None = None
    lost: Annotated[list[ComponentId], Meta(max_length=16)] = []
    """Neighbours that it could not reach."""


class PeerHello(Message, frozen=True):
    """First message of the client that dialled its neighbour."""

    FRAME: ClassVar[FrameType] = FrameType.PEER_HELLO
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Done, Refused})
    revision: Count
    address: Name
    port: Port


class Settings(Message, frozen=True):
    """The settings of the deployment, as of `revision`."""

    FRAME: ClassVar[FrameType] = FrameType.SETTINGS
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Done, Refused})
    revision: Count
    values: Values


# --- Through the hub


class ClientRow(Part, frozen=True):
    """One client in a zone server's registry."""

    id: ComponentId
    host: Name = ""
    version: Name = ""
    address: Name = ""
    observed: Name = ""
    port: Port = 0
    last_registered: Time | None = None
    key_not_after: Time | None = None
    root: Digest | None = None
    forward: ComponentId | None = None
    backward: ComponentId | None = None
    leader: bool = False
    status: Word = ""


class Report(Message, frozen=True):
    """A zone server's clients (all, or those that changed) and what they acknowledged."""

    FRAME: ClassVar[FrameType] = FrameType.REPORT
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Done, Refused})
    clients: Annotated[list[ClientRow], Meta(max_length=limits.MAX_ROWS)] = []
    full: bool = False
    acks: Annotated[list[Ack], Meta(max_length=limits.MAX_ROWS)] = []
    issued: Count = 0
    """Certificates that its client CA has signed since it was installed."""


class Relayed(Message, frozen=True):
    """The server's answer to a relayed request, for the hub to hand on."""

    FRAME: ClassVar[FrameType] = FrameType.RELAYED
    inner_type: Annotated[int, Meta(ge=0, le=255)]
    inner: bytes


class Relay(Message, frozen=True):
    """A zone server's request, as it came: frame type and body."""

    FRAME: ClassVar[FrameType] = FrameType.RELAY
    ANSWERS: ClassVar[frozenset[type[Message]]] = frozenset({Relayed, Refused})
    zone: Sender
    """Id of the zone server; empty where it has proven none."""
    proven: bool
    """Whether the hub verified its certificate."""
    inner_type: Annotated[int, Meta(ge=0, le=255)]
    inner: bytes


MESSAGES: tuple[type[Message], ...] = (
    Hello, Close, Ping, Pong, Done, Refused,
    LedgerGet, LedgerEntries, HeadNotice, Ack,
    NonceGet, Nonce, Enrol, Issued, Pending,
    Register, Registered, PeerHello, Settings,
    Report, Relay, Relayed,
)  # fmt: skip
"""Every message, in the order of its frame type."""
