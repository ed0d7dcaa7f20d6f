"""From a TCP connection to an open link, or to one line that says why there is none.

    TCP ──► TLS ──► whose chain? ──► HELLO, if none ──► admitted? ──► Channel
             │          │                │                │
             └──────────┴────────────────┴────────────────┴──────► link.refused, once (E5)

Both ways of making a link pass here, so both refuse in the same words. A line has what an
operator needs to act: which link, from where, the fingerprint of the key that was *shown* (a
refused peer has proven nothing, but its own `pki show` prints the same text), what was expected,
what came, and what to do (`REMEDIES`).

A connection that ends by itself before anything was refused (a port scan, a health check, a peer
that went away) is no refusal, and a debug line.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from agents.runtime.channel import Channel
from agents.runtime.network import Address, Endpoint, Handler, Verify
from agents.runtime.remedies import REMEDIES
from agents.runtime.trace import current_trace, new_trace
from agents.runtime.wire import Wire, address
from pki.certificates import UNREADABLE
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed, Link, Opened
from protocol.messages import Message

__all__ = ["Opening", "Side", "Visitor", "shown_fingerprint"]

OPENED_AS: Final[Mapping[LinkClass | None, str]] = MappingProxyType(
    {
        None: "a certificate of this deployment under a trusted root, or HELLO",
        LinkClass.MEMBER: "a peer of this deployment under a trusted root",
        LinkClass.ENROLMENT: "a server of this deployment under a trusted root",
        LinkClass.DISCOVERY: "anybody who has the ledger",
    }
)
"""What is expected where the maker of a link says nothing narrower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What all links of one listener, or one dial, have in common on this side."""

    endpoint: Endpoint
    verify: Verify
    handler: Handler
    server_side: bool
    """Whether this is the TLS server, whoever dialled."""
    context: Callable[[LinkClass | None], SSL.Context]
    """Asked at each connection, with its class. Raises `LookupError` while there is none."""
    link_class: Callable[[Address], LinkClass] | None
    """What a TLS client asks for; None on the TLS server, which is told."""
    kind: str
    """Which of the product's links this is, for log lines."""
    expected: str
    """Whom this link expects, for log lines; empty: what its class says."""

    def expects(self, link_class: LinkClass | None) -> str:
        """Whom a link of this class expects, for people."""
        return self.expected or OPENED_AS[link_class]


class Visitor(Protocol):
    """What one side knows of one of its connections. It holds no opening, so nothing is a cycle."""

    def arrived(self, opening: "Opening") -> bool:
        """TCP stands; False drops the connection."""
        ...

    def admit(self, opening: "Opening", opened: Opened) -> tuple[float, str] | None:
        """The link is open; None, or the seconds after which to come back, and the reason."""
        ...

    def done(self, opening: "Opening", result: Channel | Closed) -> None:
        """It is a channel, or has ended. Once."""
        ...

    def lost(self) -> None:
        """The connection is gone, be it then a channel or not. Once."""
        ...


class Opening:
    """One connection until it is a channel or gone. An `Owner` of its wire.

    Args:
        side: What it has in common with others.
        visitor: Is asked about it, and told.
    """

    __slots__ = (
        "_link_class",
        "_shown",
        "_side",
        "_turned_away",
        "_visitor",
        "id",
        "remote",
        "trace",
        "wire",
    )

    def __init__(self, side: Side, visitor: Visitor) -> None:
        self.remote: Address = ("", 0)
        self.id = os.urandom(4).hex()
        self.trace = current_trace.get() or new_trace()
        self._side = side
        self._visitor = visitor
        self._link_class: LinkClass | None = None
        self._turned_away = False
        self._shown: Sequence[bytes] = ()
        self.wire = Wire(
            self._make_link,
            endpoint=side.endpoint,
            owner=self,
            lost=visitor.lost,
        )

    def refused(self, reason: str, got: str, *, by_peer: bool = False) -> None:
        """Write the one line of a refused connection."""
        self._side.endpoint.log.warning(
            "link.refused",
            link=self.id,
            kind=self._side.kind,
            remote=self.remote,
            fingerprint=shown_fingerprint(self._shown),
            expected=self._side.expects(self._link_class),
            reason=reason,
            got=got,
            by_peer=by_peer,
            remedy=REMEDIES.get(reason, ""),
            trace=self.trace,
        )

    # --- called by the wire

    def _make_link(self, transport: asyncio.Transport) -> Link | None:
        side = self._side
        endpoint = side.endpoint
        self.remote = address(transport, "peername")
        if not self._visitor.arrived(self):
            return None
        if side.link_class is not None:
            self._link_class = side.link_class(self.remote)
        try:
            context = side.context(self._link_class)
        except LookupError as exc:
            self.refused("unready", str(exc))
            self._visitor.done(self, Closed(code=CloseCode.LOST, text=str(exc), by_peer=False))
            return None
        return Link(
            context,
            server_side=side.server_side,
            local_role=endpoint.role,
            verify=side.verify,
            link_class=self._link_class,
            limits=endpoint.limits,
            handshake_deadline=endpoint.clock.monotonic() + endpoint.handshake_timeout,
            idle_timeout=endpoint.idle_timeout,
        )

    def link_opened(self, event: Opened) -> None:
        """Hand the wire over to a channel, or turn the peer away."""
        self._link_class, self._shown = event.link_class, event.chain
        turned = self._visitor.admit(self, event)
        if turned is not None:
            retry_after, got = turned
            self._turned_away = True
            self.refused("retry_after", got)
            self.wire.close(CloseCode.RETRY_AFTER, retry_after=retry_after)
            return
        channel = Channel(
            self.wire,
            event,
            endpoint=self._side.endpoint,
            handler=self._side.handler,
            id=self.id,
            trace=self.trace,
            kind=self._side.kind,
            remote=self.remote,
        )
        self.wire.owner = channel
        self._visitor.done(self, channel)

    def link_received(self, message: Message) -> None:
        """Nothing: what a peer says while it is turned away."""

    def link_writable(self) -> None:
        """Nothing: an opening sends nothing."""

    def link_closed(self, event: Closed) -> None:
        """Say why, unless that was said."""
        self._shown = self._shown or event.shown_chain
        if self._turned_away:
            pass
        elif event.code in (CloseCode.LOST, CloseCode.NORMAL, CloseCode.GOING_AWAY):
            self._side.endpoint.log.debug(
                "link.abandoned",
                link=self.id,
                kind=self._side.kind,
                remote=self.remote,
                reason=event.text,
                trace=self.trace,
            )
        else:
            self.refused(event.code.name.lower(), _words(event), by_peer=event.by_peer)
        self._visitor.done(self, event)


def _words(event: Closed) -> str:
    """What was there instead: our own words, or the peer's, and its clock if it gave it (E7)."""
    if event.time is None or not event.by_peer:
        return event.text
    # Any number can be sent: what is no date is shown as it is.
    try:
        clock = datetime.fromtimestamp(event.time, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        clock = str(event.time)
    return f"{event.text}; the peer's clock says {clock}".removeprefix("; ")


def shown_fingerprint(chain: Sequence[bytes]) -> str:
    """Return the fingerprint (A11) of the leaf key of a chain; "-" where none was shown.

    A refused certificate need not be of our profile, so nothing but its key is looked at.
    """
    if not chain:
        return "-"
    try:
        key = x509.load_der_x509_certificate(chain[0]).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE:
        return "-"
    return hashlib.sha256(spki).hexdigest()
