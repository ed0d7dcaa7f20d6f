"""An open link, as the rest of a daemon sees it: requests out, requests in.

    request ──► trace ──► outbox ──► wire        wire ──► inbox ──► handler ──► answer

1. Everything is a request and has an answer, or `LinkError` (the link ended) or
   `UnavailableError` (no answer in time). A `Refused` is an answer and returned as a value.
2. The caller holds policy time until the answer (`hold=True`); a probe that runs for ever beside
   the real work passes `hold=False`.
3. Who gives up waiting (cancelled) sends nothing; the answer is dropped when it comes.
4. While the peer reads slowly a request waits before it is sent, within its own timeout.

What the peer asks goes to the `Inbox`, but for a `Ping` without a sender: it is asked by a link,
not by a component, and answered here while there is room, so a dialer knows that the other side
has verified it too (`dialer`), however busy handlers are.
"""

import asyncio
import contextlib
from typing import Final, cast

import msgspec

from agents.runtime.inbox import SERVING, STRANGERS, Inbox
from agents.runtime.logs import Logger
from agents.runtime.network import Address, Endpoint, Handler
from agents.runtime.outbox import Outbox, link_error
from agents.runtime.remedies import REMEDIES
from agents.runtime.trace import current_trace, new_trace
from agents.runtime.wire import Wire
from pki.peers import Peer
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.errors import LinkClosedError
from protocol.link import Closed, Opened
from protocol.messages import Message, Ping, Pong

__all__ = ["Channel", "Handler"]

OFFENCES: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.FRAME_TOO_LARGE,
        CloseCode.UNKNOWN_FRAME,
        CloseCode.NOT_ALLOWED,
    }
)
"""Ends of an open link that are the peer's doing."""


class Channel:
    """An open link. Made by `dialer` and `listener`; belongs to one event loop.

    Attributes:
        id: 8 hexadecimal digits that tell links of this process apart in its log.
        link_class: What the link may carry.
        peer: Who `verify` says is at the other end; None where the peer has shown nothing.
        remote: Address and port of the peer as seen here.
        trace: The trace under which it was made.
        kind: Which of the product's links this is, for log lines.
        on_closed: Resolved once, with how the link ended. Never fails; do not cancel it.
    """

    __slots__ = (
        "__weakref__",
        "_announced",
        "_drainers",
        "_endpoint",
        "_inbox",
        "_outbox",
        "_wire",
        "_writers",
        "id",
        "kind",
        "link_class",
        "on_closed",
        "peer",
        "remote",
        "trace",
    )

    def __init__(
        self,
        wire: Wire,
        opened: Opened,
        *,
        endpoint: Endpoint,
        handler: Handler,
        id: str,
        trace: str,
        kind: str,
        remote: Address,
    ) -> None:
        self.id = id
        self.link_class: LinkClass = opened.link_class
        self.peer = cast(Peer | None, opened.peer)  # as our own `verify` gave it
        self.remote = remote
        self.trace = trace
        self.kind = kind
        self._wire = wire
        self._endpoint = endpoint
        self._announced = False
        self.on_closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self._outbox: Outbox | None = None  # most links never ask, and wait for nothing
        self._writers: list[asyncio.Future[None]] | None = None
        self._drainers: tuple[asyncio.Future[None], ...] = ()
        serving = STRANGERS if self.peer is None else SERVING
        self._inbox = Inbox(self, wire, handler, clock=endpoint.clock, serving=serving)

    def __repr__(self) -> str:
        return f"<Channel {self.id} {self.link_class.value} {self.name}>"

    @property
    def name(self) -> str:
        """Who is at the other end, for people: role and id, or the address of a stranger."""
        if self.peer is not None:
            return f"{self.peer.name.role}/{self.peer.name.id.hex()}"
        return f"{self.remote[0]}:{self.remote[1]}"

    @property
    def local(self) -> Address:
        """Our own address and port; unknown after the end."""
        return self._wire.local

    @property
    def log(self) -> Logger:
        """For its few lines, which say which link and whose: an idle link keeps none."""
        return self._endpoint.log.bind(link=self.id, peer=self.name)

    @property
    def fingerprint(self) -> str:
        """Whose key was proven here, for people; "-" where none was."""
        return "-" if self.peer is None else self.peer.leaf.fingerprint

    @property
    def on_gone(self) -> asyncio.Future[None]:
        """Resolved when the connection itself is no more; do not cancel it."""
        return self._wire.gone

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.on_closed.done()

    @property
    def is_open(self) -> bool:
        """Whether it can still carry a request."""
        return not self.on_closed.done()

    def binding(self) -> bytes:
        """32 bytes that only the two ends of this connection know (enrolment signs them)."""
        return self._wire.link.binding()

    async def request(
        self,
        message: Message,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - network time, on the clock of the link
        hold: bool = True,
    ) -> Message:
        """Send a request and return its answer.

        Args:
            message: `call` is filled in, and `trace` if it is empty.
            timeout: Seconds of network time for everything, waiting to send included.
            hold: Whether policy time waits for the answer.

        Raises:
            LinkError: The link has ended, before or while waiting.
            UnavailableError: No answer in time.
            LocalProtocolError: This message may not be sent on this link; our bug.
        """
        if self.on_closed.done():
            raise link_error(self.name, self.on_closed.result())
        if not message.trace:
            message = msgspec.structs.replace(message, trace=current_trace.get() or new_trace())
        if self._outbox is None:
            self._outbox = Outbox(self._endpoint.clock, self.name)
        message, answer = self._outbox.open(message, timeout)
        nested = self._inbox.nest()
        try:
            with self._endpoint.clock.hold() if hold else contextlib.nullcontext():
                if self._wire.write_blocked:
                    await self._writable_or(answer)
                if not answer.done():
                    self.send(message)
                return await answer
        finally:
            self._outbox.forget(message.call)
            self.settle()
            if nested:
                self._inbox.unnest()

    def close(
        self,
        code: CloseCode = CloseCode.NORMAL,
        text: str = "",
        *,
        retry_after: float | None = None,
    ) -> None:
        """Tell the peer why, and end. Idempotent; `closed` waits for nothing after this."""
        self._wire.close(code, text, retry_after=retry_after)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self._wire.abort()

    async def closed(self) -> Closed:
        """Wait for the end, and say how it came."""
        return await asyncio.shield(self.on_closed)

    async def gone(self) -> None:
        """Wait until the connection itself is no more; a few seconds after `close` at the most.

        For a program that is about to end: what `close` said is under way until then.
        """
        await asyncio.shield(self.on_gone)

    async def drain(self, within: float = 10.0) -> None:
        """Wait until nothing is under way in either direction, the link ends, or time is up.

        Before a link is replaced: what was asked on the old one is answered on the old one.
        """
        if self._busy() and self.is_open:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drainers += (drained,)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await drained

    async def retire(self, code: CloseCode, text: str = "") -> None:
        """End a link that is not needed any more, once nothing is under way on it."""
        await self.drain()
        self.close(code, text)

    def announce(self) -> None:
        """Write the line that says that this link is open; its end has one too, then."""
        self._announced = True
        self._endpoint.log.info(
            "link.opened",
            link=self.id,
            peer=self.name,
            kind=self.kind,
            link_class=self.link_class.value,
            remote=self.remote,
            trace=self.trace,
        )

    # --- called by the wire

    def link_opened(self, event: Opened) -> None:
        """Nothing: this object exists because of it."""

    def link_received(self, message: Message) -> None:
        """Give an answer to who waits for it, a request to the handler."""
        if self._endpoint.log.debugging:
            self.log.debug("message.in", type=type(message).__name__, trace=message.trace)
        if not message.ANSWERS:
            if self._outbox is not None:
                self._outbox.resolve(message)
        elif type(message) is Ping and not message.sender and not self._wire.write_blocked:
            with contextlib.suppress(LinkClosedError):  # its CLOSE may have come right behind
                self.send(Pong(id=message.id, call=message.call, trace=message.trace))
        else:
            self._inbox.put(message)

    def link_writable(self) -> None:
        """Wake who waits to send, and read on; who comes too late asks again."""
        self._inbox.writable()
        writers, self._writers = self._writers, None
        for writer in writers or ():
            if not writer.done():
                writer.set_result(None)

    def link_closed(self, event: Closed) -> None:
        """Fail what waits, and tell who cares."""
        if self.on_closed.done():
            return
        self.on_closed.set_result(event)
        self._inbox.close()
        if self._outbox is not None:
            self._outbox.close(event)
        self.link_writable()
        self.settle()
        if self._announced:
            self._say_closed(event)

    def _say_closed(self, event: Closed) -> None:
        """One line; where it ended for what the peer did, the line of a refusal (E5)."""
        code = event.code.name.lower()
        said = {
            "link": self.id,
            "peer": self.name,
            "kind": self.kind,
            "link_class": self.link_class.value,
            "remote": self.remote,
            "code": code,
            "reason": event.text,
            "by_peer": event.by_peer,
            "trace": self.trace,
        }
        if event.code in OFFENCES and not event.by_peer:
            self._endpoint.log.warning(
                "link.closed",
                **said,
                fingerprint=self.fingerprint,
                expected=f"what {self.name} may say on this link, within its limits",
                remedy=REMEDIES[code],
            )
        else:
            self._endpoint.log.info("link.closed", **said)

    # --- at rest

    def _busy(self) -> bool:
        return bool(self._outbox) or self._inbox.busy

    def settle(self) -> None:
        """Wake who waits in `drain`, if there is nothing more to wait for."""
        if self._drainers and (self.is_closed or not self._busy()):
            drainers, self._drainers = self._drainers, ()
            for drained in drainers:
                if not drained.done():
                    drained.set_result(None)

    # --- what goes out

    def send(self, message: Message) -> None:
        """Have a message written; `request` for what is to be answered.

        Raises:
            LinkClosedError: The link has ended.
            LocalProtocolError: It may not be said on this link.
        """
        self._wire.send(message)
        if self._endpoint.log.debugging:
            self.log.debug("message.out", type=type(message).__name__, trace=message.trace)

    async def _writable_or(self, answer: asyncio.Future[Message]) -> None:
        """Wait until there is room, or until there is nothing to wait for."""
        while self._wire.write_blocked and not answer.done():
            room = self._room()
            await asyncio.wait((room, answer), return_when=asyncio.FIRST_COMPLETED)

    async def writable(self) -> None:
        """Wait until the peer has room, or the link ends."""
        while self._wire.write_blocked and self.is_open:
            await self._room()

    def _room(self) -> asyncio.Future[None]:
        writer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._writers is None:
            self._writers = []
        self._writers.append(writer)
        return writer
