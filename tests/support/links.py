"""Both sides of links on loopback sockets: endpoints with test certificates, and raw peers."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import uvloop
from OpenSSL import SSL

from agents.runtime.admission import Admission
from agents.runtime.channel import Channel
from agents.runtime.dialer import dial
from agents.runtime.listener import Listener
from agents.runtime.network import Endpoint, Handler
from protocol.access import CLIENT, LinkClass
from protocol.codes import CloseCode
from protocol.errors import Refusal
from protocol.limits import Limits
from protocol.link import Verify
from protocol.messages import Done, LedgerEntries, LedgerGet, Message, Ping, Pong
from protocol.tls import Credentials, client_context, discovery_context, server_context
from tests.support.certs import Authority, uri_of

HOST = "127.0.0.1"
RESET = b"\1\0\0\0\0\0\0\0"
"""Has the kernel reset a connection that is closed: `struct linger`, on and 0 seconds."""
POLICY_TIME = int(datetime(2031, 1, 2, tzinfo=UTC).timestamp())

SLOT = bytes(32)
SENDER = bytes(16)
ASK = LedgerGet(slot=SLOT, n=0, entry_id=bytes(32))

T = TypeVar("T")
DEADLINE = 60.0
"""Seconds after which a test that hangs has failed."""


def on_uvloop(tests: type[T]) -> type[T]:
    """Run the asynchronous tests of a class, inherited ones too, on the loop that daemons use."""
    for name, test in inspect.getmembers(tests, inspect.iscoroutinefunction):
        if name.startswith("test"):
            setattr(tests, name, _run_on_uvloop(test))
    return tests


def _run_on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    return run


@dataclass(frozen=True)
class FakeName:
    role: str
    id: bytes = bytes(16)


@dataclass(frozen=True)
class FakePeer:
    """What `pki.peers.Peer` is, as far as links care."""

    role: str

    @property
    def name(self) -> FakeName:
        return FakeName(self.role)


def believe(chain: tuple[bytes, ...]) -> FakePeer:
    return FakePeer(uri_of(chain[0]).removeprefix("test://"))


def disbelieve(code: CloseCode, text: str = "not wanted") -> Verify:
    def verify(chain: tuple[bytes, ...]) -> FakePeer:
        raise Refusal(code, text, time=POLICY_TIME)

    return verify


@cache
def root() -> Authority:
    return Authority()


@cache
def foreign_root() -> Authority:
    """Of another deployment, with the same names."""
    return Authority()


@cache
def credentials(role: str, authority: Callable[[], Authority] = root) -> Credentials:
    issuer = authority().below() if role == CLIENT else authority()
    return issuer.issue(role)


@dataclass
class FakeContexts:
    """`network.Contexts` of one role; without credentials it is not ready."""

    shown: Credentials | None
    roots: tuple[bytes, ...]

    def server(self) -> SSL.Context:
        if self.shown is None:
            raise LookupError("no certificate yet")
        return server_context(self.shown, self.roots)

    def member(self) -> SSL.Context:
        return client_context(self.shown, self.roots)

    def enrolment(self) -> SSL.Context:
        return client_context(None, self.roots)

    def discovery(self) -> SSL.Context:
        return discovery_context()


class RealClock:
    """Network time of the running loop; counts holds."""

    def __init__(self) -> None:
        self.holds = 0
        self.taken = 0

    def now(self) -> datetime:
        return datetime(2031, 1, 2, tzinfo=UTC)

    def elapsed(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait_until(self, date: datetime) -> None:
        raise AssertionError("links never wait for policy time")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def hold(self) -> "RealClock":
        return self

    def __enter__(self) -> None:
        self.holds += 1
        self.taken += 1

    def __exit__(self, *_exc: object) -> None:
        self.holds -= 1


def endpoint(
    role: str,
    *,
    authority: Callable[[], Authority] = root,
    trusts: Callable[[], Authority] = root,
    limits: Limits | None = None,
    handshake_timeout: float = 10.0,
    idle_timeout: float = 60.0,
) -> Endpoint:
    return Endpoint(
        role=role,
        clock=RealClock(),
        contexts=FakeContexts(credentials(role, authority), (trusts().der,)),
        limits=limits or Limits(),
        handshake_timeout=handshake_timeout,
        idle_timeout=idle_timeout,
    )


async def answer(_channel: Channel, message: Message) -> Message:
    """Answer like any component would."""
    match message:
        case Ping(id=id):
            return Pong(id=id)
        case LedgerGet(slot=slot):
            return LedgerEntries(slot=slot, first=1, entries=[b"entry"])
        case _:
            return Done()


def ping(number: int) -> Ping:
    return Ping(id=number, sender=SENDER)


class Stalled:
    """A handler that stands until it is told to go on; counts who is inside."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0
        self.started = 0
        self.most = 0

    async def __call__(self, channel: Channel, message: Message) -> Message:
        self.started += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
        return await answer(channel, message)


@dataclass
class Site:
    """A listener, and what is needed to reach it."""

    listener: Listener
    endpoint: Endpoint
    opened: list[Channel] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    async def first(self) -> Channel:
        """The first link that opened, as soon as there is one."""
        return await self.channel(0)

    async def channel(self, index: int) -> Channel:
        async with asyncio.timeout(20):
            while len(self.opened) <= index:  # noqa: ASYNC110 - see `until`
                await asyncio.sleep(0)
        return self.opened[index]


@asynccontextmanager
async def listening(
    role: str = "server",
    *,
    at: Endpoint | None = None,
    handler: Handler = answer,
    verify: Verify = believe,
    admission: Admission | None = None,
    **options: Any,  # noqa: ANN401 - handed on
) -> AsyncIterator[Site]:
    here = at or endpoint(role)
    opened: list[Channel] = []
    listener = await Listener.start(
        HOST,
        0,
        endpoint=here,
        verify=verify,
        handler=handler,
        admission=admission,
        on_channel=opened.append,
        **options,
    )
    try:
        yield Site(listener, here, opened)
    finally:
        await listener.stop()


async def connect(
    site: Site,
    role: str = CLIENT,
    *,
    link_class: LinkClass | None = LinkClass.MEMBER,
    at: Endpoint | None = None,
    handler: Handler = answer,
    verify: Verify = believe,
    **options: Any,  # noqa: ANN401 - handed on
) -> Channel:
    return await dial(
        HOST,
        site.port,
        endpoint=at or endpoint(role),
        link_class=link_class,
        verify=verify,
        handler=handler,
        **options,
    )


async def until(claim: Callable[[], bool]) -> None:
    """Let the loop run until the claim is true; fails after a long time."""
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - any state of any object may be claimed
            await asyncio.sleep(0)


async def stranger(
    site: Site, source: str = HOST
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection that says nothing yet."""
    return await asyncio.open_connection(HOST, site.port, local_addr=(source, 0))


async def is_dropped(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection; waits for it."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    return True


async def works(site: Site) -> bool:
    """Whether a member is served like ever."""
    channel = await connect(site)
    got = await channel.request(Ping(id=1, sender=bytes(16)))
    channel.close()
    return isinstance(got, Pong)
