"""What one side of every link of a component has in common, and how a link can fail.

    listener   accepts connections, and bounds them        dialer   makes one
        └──────────────────────────┬──────────────────────────────────┘
                               opening   from TCP to an open link, or one line that says why not
                               channel   an open link: requests, answers, back-pressure
                               wire      bytes and time between a socket and `protocol.link`

An `Endpoint` is made once by a daemon and given to its listeners and dials. Everything in it
that changes while the daemon runs (roots, certificate) is asked for anew at each connection.

A failure is an `UnavailableError` to whoever does not care, and says more to whoever does:

    LinkError           the link is closed; `code`, `retry_after` and `peer_time` say what the
                        end was, `by_peer` whose words they are
      DialError         there never was a link; `unreachable` if not even TCP, else as above

A member decides on `code`: UNTRUSTED, EXPIRED, CLOCK and REVOKED lead to discovery or enrolment,
RETRY_AFTER to waiting `retry_after` seconds, everything else to the back-off.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from agents.runtime.clock import Clock
from agents.runtime.deadlines import Deadlines
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger, get_logger
from agents.runtime.turns import Turns
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.limits import Limits
from protocol.link import Verify
from protocol.messages import Message

if TYPE_CHECKING:  # a channel needs an endpoint
    from agents.runtime.channel import Channel

__all__ = [
    "Address",
    "Answer",
    "Contexts",
    "DialError",
    "Endpoint",
    "Handler",
    "LinkError",
    "Verify",
    "answered",
    "client_context",
]

Address = tuple[str, int]
"""Numeric address and TCP port."""

Answer = Message | None
"""None: the peer gets no answer and times out, so return one."""

Handler = Callable[["Channel", Message], Answer | Awaitable[Answer]]
"""Answers a request: at once, or with what is to be awaited for it. At once costs no task."""


SCRATCH = 128 * 1024
"""Bytes read at once from a socket: a frame of 64 KiB with its records comes in one piece."""


class Contexts(Protocol):
    """TLS contexts, each made from what is trusted and held at the moment of the call."""

    def server(self) -> SSL.Context:
        """For the TLS server of any class. Raises `LookupError` while there is no certificate."""
        ...

    def member(self) -> SSL.Context:
        """For a TLS client that shows its certificate."""
        ...

    def enrolment(self) -> SSL.Context:
        """For a TLS client that proves the server and shows nothing."""
        ...

    def discovery(self) -> SSL.Context:
        """For a TLS client that proves nobody and shows nothing."""
        ...


def client_context(contexts: Contexts, link_class: LinkClass) -> SSL.Context:
    """The context with which a TLS client opens a link of this class."""
    match link_class:
        case LinkClass.MEMBER:
            return contexts.member()
        case LinkClass.ENROLMENT:
            return contexts.enrolment()
        case LinkClass.DISCOVERY:
            return contexts.discovery()


async def answered(answer: Answer | Awaitable[Answer]) -> Answer:
    """What a handler answers in the end."""
    return answer if answer is None or isinstance(answer, Message) else await answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One component's side of its links. Belongs to one event loop."""

    role: str
    """Role of this component, as the access table calls it."""
    clock: Clock
    contexts: Contexts
    log: Logger = field(default_factory=get_logger)
    limits: Limits = field(default_factory=Limits)
    handshake_timeout: float = 10.0
    """Seconds from TCP connection to open link. A handshake takes milliseconds and three round
    trips; ten seconds allow for lost packets at a far site and cost a slot in `Admission`."""
    idle_timeout: float = 300.0
    """Seconds without a byte after which a link is closed. Registrations (30 to 90 s) and probes
    keep a link that is wanted alive; a half-open one goes after this."""
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH)), repr=False)
    """The one read buffer of this loop: bytes leave it before the next read (36 KiB a
    connection would otherwise be 160)."""
    turns: Turns = field(default_factory=Turns, repr=False)
    """Where heavy work of this loop stands in line."""
    deadlines: Deadlines = field(default_factory=Deadlines, repr=False)
    """Where links keep theirs."""


class LinkError(UnavailableError):
    """A link is closed, and so are the requests that waited on it.

    Args:
        text: What happened.
        code: The code of its end, or None if there never was a TLS connection.
        by_peer: Whether the peer closed it.
        retry_after: Seconds of network time after which the peer wants to be asked again.
        peer_time: The peer's policy time in seconds since 1970, if it said so (E7).
    """

    def __init__(
        self,
        text: str,
        *,
        code: CloseCode | None,
        by_peer: bool = False,
        retry_after: float | None = None,
        peer_time: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(text, retry_after, hint)
        self.code = code
        self.by_peer = by_peer
        self.peer_time = peer_time


class DialError(LinkError):
    """There is no link: nobody answers at that address, or one side refused the other."""

    @property
    def unreachable(self) -> bool:
        """Whether there was no TCP connection, or it ended before TLS said anything."""
        return self.code is None
