"""Two links joined by a wire in memory, and a verifier that reads roles from test names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from OpenSSL import SSL

from protocol.access import CLIENT, SERVER, LinkClass
from protocol.codes import CloseCode
from protocol.errors import Refusal
from protocol.limits import Limits
from protocol.link import Closed, Event, Link, Opened, Peer, Received
from protocol.messages import Message
from protocol.tls import Credentials, client_context, discovery_context, server_context
from tests.support.certs import Authority, uri_of

DEADLINE = 10.0
IDLE = 60.0

Cut = Callable[[bytes], Iterable[bytes]]


@dataclass(frozen=True)
class TestPeer:
    """Who a test certificate says it is."""

    __test__ = False

    role: str


def believe(chain: tuple[bytes, ...]) -> Peer:
    return TestPeer(uri_of(chain[0]).removeprefix("test://"))


def refuse(code: CloseCode, text: str = "not wanted") -> Callable[[tuple[bytes, ...]], Peer]:
    def verify(chain: tuple[bytes, ...]) -> Peer:
        raise Refusal(code, text, time=1_924_992_000, retry_after=2.5)

    return verify


@cache
def root() -> Authority:
    return Authority()


@cache
def credentials(role: str) -> Credentials:
    """Credentials of a role: a client's pass a client CA."""
    issuer = root().below() if role == CLIENT else root()
    return issuer.issue(role)


@cache
def contexts(role: str, *, server_side: bool, show: bool = True) -> SSL.Context:
    if server_side:
        return server_context(credentials(role), [root().der])
    return client_context(credentials(role) if show else None, [root().der])


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@dataclass
class End:
    """A link, and the events that it has told."""

    link: Link
    events: list[Event] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.events if isinstance(event, Received)]

    @property
    def opened(self) -> Opened:
        return next(event for event in self.events if isinstance(event, Opened))

    @property
    def closed(self) -> Closed:
        return next(event for event in self.events if isinstance(event, Closed))


@dataclass
class Pair:
    """A TLS client and a TLS server; `run` carries bytes until nothing is left to say."""

    client: End
    server: End
    cut: Cut = whole
    now: float = 0.0

    def run(self) -> "Pair":
        while True:
            moved = self.carry(self.client, self.server) + self.carry(self.server, self.client)
            if not moved:
                return self

    def carry(self, source: End, target: End) -> int:
        data = source.link.data_to_send()
        for piece in self.cut(data) if data else ():
            target.events += target.link.receive_data(piece, self.now)
        return len(data)


def client_link(
    link_class: LinkClass,
    role: str = CLIENT,
    *,
    context: SSL.Context | None = None,
    verify: Callable[[tuple[bytes, ...]], Peer] = believe,
) -> Link:
    if context is None and link_class is LinkClass.DISCOVERY:
        context = discovery_context()
    show = link_class is LinkClass.MEMBER
    return Link(
        context or contexts(role, server_side=False, show=show),
        server_side=False,
        local_role=role,
        verify=verify,
        link_class=link_class,
        handshake_deadline=DEADLINE,
        idle_timeout=IDLE,
    )


def server_link(
    role: str = SERVER,
    *,
    context: SSL.Context | None = None,
    verify: Callable[[tuple[bytes, ...]], Peer] = believe,
    limits: Limits | None = None,
) -> Link:
    return Link(
        context or contexts(role, server_side=True),
        server_side=True,
        local_role=role,
        verify=verify,
        limits=limits,
        handshake_deadline=DEADLINE,
        idle_timeout=IDLE,
    )


def pair(
    link_class: LinkClass,
    *,
    client: str = CLIENT,
    server: str = SERVER,
    cut: Cut = whole,
) -> Pair:
    return Pair(End(client_link(link_class, client)), End(server_link(server)), cut)
