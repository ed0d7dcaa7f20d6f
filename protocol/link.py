"""A link: TCP's bytes on one side, typed messages on the other, and no I/O between.

    bytes  ->  TLS  ->  frames  ->  messages  ->  may this peer say that?  ->  events

    link = Link(context, server_side=False, local_role="client", verify=verify,
                link_class=LinkClass.MEMBER, handshake_deadline=now + 10, idle_timeout=300)
    write(link.data_to_send())                  # the first flight of a TLS client
    events = link.receive_data(data, now)       # then: write data_to_send(), re-arm the
    events = link.receive_eof(now)              # timer at next_timeout(), deliver the
    events = link.handle_timeout(now)           # events: the same after each of these
    link.send(message)
    events = link.close(CloseCode.NORMAL, now=now)

1. Inputs never raise for what the peer did: a broken peer is a `Closed` event.
2. Events come in order: `Opened` at most once, then `Received`, and `Closed` last, once.
   What the peer sent before it broke the rules is delivered; what comes after is not.
3. After `Closed`, take `data_to_send()` once more: the CLOSE frame or an alert may be in
   it. Then end the connection: there is no half-close.
4. The same bytes in other pieces give the same events.
5. The peer learns the code of a refusal, the log learns the reason.

`now` is network time in seconds everywhere.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Protocol

import msgspec
from OpenSSL import SSL

from protocol.access import SERVER, STRANGER, LinkClass, allowed
from protocol.codec import decode, encode
from protocol.codes import CloseCode
from protocol.errors import (
    AlertError,
    LinkClosedError,
    LocalProtocolError,
    Refusal,
    RemoteProtocolError,
    TLSError,
    WrongVersionError,
)
from protocol.frames import Frame, FrameDecoder, FrameType
from protocol.limits import FRAME_LIMITS, MAX_TEXT, Limits
from protocol.messages import VERSION, Close, Hello, Message
from protocol.states import State, Trigger, advance
from protocol.tls import TLS

# Looking a member up in its Enum costs as much as calling a function, and these are asked for
# at each frame.
_HANDSHAKE: Final[State] = State.HANDSHAKE
_OPEN: Final[State] = State.OPEN
_CLOSED: Final[State] = State.CLOSED

__all__ = ["BINDING_LABEL", "Closed", "Event", "Link", "Opened", "Peer", "Received", "Verify"]

BINDING_LABEL: Final = b"EXPORTER-anchorline-enrol-v1"
"""Label of the exporter that binds an enrolment to its link (RFC 5705)."""
_BINDING_LENGTH: Final = 32


class Peer(Protocol):
    """What `verify` returns: of the peer, only its role matters here."""

    @property
    def role(self) -> str:
        """One of `protocol.access.ROLES`."""
        ...


Verify = Callable[[tuple[bytes, ...]], Peer]
"""Who a chain (DER, leaf first, root last, verified by OpenSSL) is; raises `Refusal`."""


class Opened(msgspec.Struct, frozen=True):
    """Messages flow from now on."""

    link_class: LinkClass
    peer: Peer | None
    """What `verify` returned; `None` where the peer has proven nothing."""
    chain: tuple[bytes, ...]
    """The peer's verified chain; empty where there is none."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """The peer said something that it may say. One a frame, so of the cheapest kind."""

    message: Message


class Closed(msgspec.Struct, frozen=True):
    """The link has ended; nothing comes after this."""

    code: CloseCode
    text: str
    """The reason, for the log. Where `by_peer`, the peer chose the words."""
    by_peer: bool
    """Whether the peer ended it, by a CLOSE frame, an alert or the end of its stream."""
    shown_chain: tuple[bytes, ...] = ()
    """Certificates (DER) that the peer has shown where the link did not open, for log lines; what
    was verified came with `Opened`."""
    time: int | None = None
    """Clock of the side that closed, in Unix seconds, with EXPIRED and CLOCK."""
    retry_after: float | None = None
    """Seconds of network time, with RETRY_AFTER."""


Event = Opened | Received | Closed


class Link:
    """One end of a link. Not safe for concurrent use.

    Args:
        context: TLS context of this side, from `protocol.tls`.
        server_side: Whether this is the TLS server, whoever dialled.
        local_role: Our own role; a TLS client of a discovery or enrolment link proves
            none, and speaks as a stranger.
        verify: Asked once about a peer that has shown a chain, never on the TLS client's
            side of a discovery link.
        link_class: What a TLS client wants; `None` on the server, which learns it.
        limits: What the peer may cost.
        handshake_deadline: When `Opened` must have happened.
        idle_timeout: Seconds without a whole frame after which an open link ends.

    Raises:
        LocalProtocolError: A TLS client without a class, a server with one, or a context
            that does not fit the class.
    """

    __slots__ = (
        "_bound",
        "_chain",
        "_deadline",
        "_decoder",
        "_handshake_bytes",
        "_idle_timeout",
        "_limits",
        "_local_role",
        "_queue",
        "_sendable",
        "_server_side",
        "_tls",
        "_verify",
        "bytes_buffered",
        "link_class",
        "peer",
        "state",
    )

    def __init__(
        self,
        context: SSL.Context,
        *,
        server_side: bool,
        local_role: str,
        verify: Verify,
        link_class: LinkClass | None = None,
        limits: Limits | None = None,
        handshake_deadline: float,
        idle_timeout: float,
    ) -> None:
        if server_side is (link_class is not None):
            raise LocalProtocolError("the TLS client states the link class, the server learns it")
        # Where OpenSSL verifies nobody it shows a chain all the same, and proves nothing by it.
        verifies = context.get_verify_mode() == SSL.VERIFY_PEER
        if verifies is (link_class is LinkClass.DISCOVERY):
            raise LocalProtocolError(
                "a context that verifies nobody is for discovery, and no other"
            )
        self._tls = TLS(context, server_side=server_side)
        self._bound: bytes | None = None  # wanted at each enrolment
        self._server_side = server_side
        self._local_role = local_role
        self._verify = verify
        self.link_class = link_class
        """The class; on the server side `None` before `Opened`. To be read, as the next two."""
        self._limits = limits or _LIMITS
        self._deadline = handshake_deadline
        self._idle_timeout = idle_timeout
        self.state = State.HANDSHAKE
        """What is true of the link now."""
        self.peer: Peer | None = None
        """What `verify` returned, if it was asked."""
        self._chain: tuple[bytes, ...] = ()
        self._handshake_bytes = 0
        self._sendable: frozenset[type[Message]] = frozenset()
        self._decoder = FrameDecoder(self._accept(_BEFORE_HELLO), "a link before HELLO")
        self._queue: list[bytes] = []
        self.bytes_buffered = 0
        """Bytes of messages that `data_to_send` has not yet taken. To be read."""

    # --- Input from the network

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Take bytes from the peer."""
        events: list[Event] = []
        if self.state is _CLOSED:
            return events
        tls = self._tls
        plaintext = tls.receive(data)
        if self.state is _HANDSHAKE:
            self._follow_handshake(len(data), now, events)
        if plaintext:
            self._take(plaintext, now, events)
        if tls.failure is not None:
            self._fail(tls.failure, events)
        elif tls.ended:
            events += self.receive_eof(now)
        return events

    def receive_eof(self, now: float) -> list[Event]:
        """Take the end of the peer's stream; idempotent."""
        events: list[Event] = []
        if self.state is _CLOSED:
            return events
        where = {
            State.HANDSHAKE: "connection lost during the TLS handshake",
            State.HELLO: "connection lost before HELLO",
            State.OPEN: "connection lost without a CLOSE frame",
        }[self.state]
        self._end(Closed(CloseCode.LOST, where, by_peer=True), events)
        return events

    def handle_timeout(self, now: float) -> list[Event]:
        """Do what is due; harmless when early."""
        events: list[Event] = []
        due = self.next_timeout()
        if due is None or now < due:
            return events
        if self.state is _OPEN:
            text = f"no frame for {self._idle_timeout:g} s"
            return self.close(CloseCode.IDLE_TIMEOUT, text, now=now)
        what = "HELLO" if self.state is State.HELLO else "TLS handshake"
        return self.close(CloseCode.HANDSHAKE_TIMEOUT, f"{what} not done in time", now=now)

    def next_timeout(self) -> float | None:
        """Return when to call `handle_timeout`; `None` after the end."""
        return None if self.state is _CLOSED else self._deadline

    # --- Input from the application

    def send(self, message: Message) -> None:
        """Queue a message for `data_to_send`.

        Raises:
            LinkClosedError: The link has ended.
            LocalProtocolError: The link is not open, we may not say this to this peer,
                or a field breaks its limit.
        """
        if self.state is _CLOSED:
            raise LinkClosedError("the link has ended")
        if self.state is not _OPEN:
            raise LocalProtocolError("the link is not open yet")
        kind = type(message)
        if kind not in self._sendable or kind is Close:
            raise LocalProtocolError(f"{message.FRAME.name} may not be sent on this link")
        self._put(message)

    def close(
        self,
        code: CloseCode,
        text: str = "",
        *,
        time: int | None = None,
        retry_after: float | None = None,
        now: float,
    ) -> list[Event]:
        """End the link, with a CLOSE frame where TLS is up; idempotent.

        Args:
            code: What the peer is told.
            text: Why; the peer sees it.
            time: Our policy time in Unix seconds, with EXPIRED and CLOCK.
            retry_after: Seconds of network time, with RETRY_AFTER.
            now: Network time.
        """
        events: list[Event] = []
        closed = Closed(code, text, by_peer=False, time=time, retry_after=retry_after)
        self._say_close(closed, text)
        self._end(closed, events)
        return events

    def data_to_send(self) -> bytes:
        """Return the bytes to write to the connection now, once."""
        queue = self._queue
        if not queue:
            return self._tls.data_to_send()
        batch = queue[0] if len(queue) == 1 else b"".join(queue)
        queue.clear()
        self.bytes_buffered = 0
        return self._tls.sealed(batch)

    def binding(self) -> bytes:
        """Return the 32 bytes that bind an enrolment to this link, equal at both ends.

        Raises:
            LocalProtocolError: The handshake is not done.
        """
        if self._bound is None:
            self._bound = self._tls.exporter(BINDING_LABEL, _BINDING_LENGTH)
        return self._bound

    # --- Becoming open

    def _follow_handshake(self, received: int, now: float, events: list[Event]) -> None:
        """Admit the peer when TLS is done, or give up on one that only sends."""
        self._handshake_bytes += received
        if self._tls.handshake_done:
            self._secured(now, events)
        elif self._tls.failure is None and self._handshake_bytes > self._limits.handshake:
            self._fail(TLSError(f"no handshake in {self._limits.handshake} bytes"), events)

    def _secured(self, now: float, events: list[Event]) -> None:
        """Decide what the handshake has proven."""
        if self.link_class is LinkClass.DISCOVERY:
            self._admit(LinkClass.DISCOVERY, None, now, events)
            return
        self._chain = self._tls.verified_chain()
        if self._server_side and not self._chain:
            self.state = advance(self.state, Trigger.STRANGER)
            return
        try:
            if not self._chain:
                raise Refusal(CloseCode.UNTRUSTED, "the peer has shown no chain")
            peer = self._verify(self._chain)
        except Refusal as exc:
            self._refuse(exc, events)
        else:
            self._admit(self.link_class or LinkClass.MEMBER, peer, now, events)

    def _admit(
        self, link_class: LinkClass, peer: Peer | None, now: float, events: list[Event]
    ) -> None:
        """Open the link, if the table has one of this class between these roles."""
        local, remote = self._roles(link_class, peer)
        sendable = allowed(link_class, local, remote)
        if not sendable:
            text = f"there is no {link_class} link between {local} and {remote[:32]!r}"
            code = CloseCode.NOT_ALLOWED if peer is None else CloseCode.WRONG_ROLE
            self._refuse(Refusal(code, text), events)
            return
        self.state = advance(self.state, Trigger.ADMITTED)
        self.link_class = link_class
        self.peer = peer
        self._sendable = sendable
        self._decoder.expect(
            self._accept(allowed(link_class, remote, local)), _where(link_class, remote, local)
        )
        self._deadline = now + self._idle_timeout
        self._tls.forget_shown_chain()
        if not self._server_side and link_class is not LinkClass.MEMBER:
            self._put(_HELLO[link_class])
        events.append(Opened(link_class, peer, self._chain))
        self._chain = ()  # whoever wants to keep it has it

    def _roles(self, link_class: LinkClass, peer: Peer | None) -> tuple[str, str]:
        """Return as whom we and the peer speak on a link of this class."""
        if peer is not None:
            local = self._local_role if link_class is LinkClass.MEMBER else STRANGER
            return local, peer.role
        # Discovery is the same with every role, and its TLS client knows none.
        return (self._local_role, STRANGER) if self._server_side else (STRANGER, SERVER)

    def _accept(self, types: frozenset[type[Message]]) -> Mapping[int, int]:
        """Return the limits of the frames that carry these messages."""
        frames = self._limits.frames
        return _usual_limits(types) if frames is FRAME_LIMITS else _limits_of(frames, types)

    # --- Frames

    def _take(self, plaintext: bytes | memoryview, now: float, events: list[Event]) -> None:
        """Cut frames out of plaintext until it is used up or the link has ended."""
        if self.state is _CLOSED:
            return
        decoder = self._decoder
        try:
            frame = decoder.sole(plaintext)
            if frame is not None:
                self._take_frame(frame, now, events)
                return
            decoder.feed(plaintext)
            while (frame := decoder.next_frame()) is not None:
                self._take_frame(frame, now, events)
                if self.state is _CLOSED:
                    return
        except RemoteProtocolError as exc:
            self._fail(exc, events)

    def _take_frame(self, frame: Frame, now: float, events: list[Event]) -> None:
        message = decode(frame.type, frame.body)
        if type(message) is Close:
            self._end(_closed_by(message), events)
        elif type(message) is Hello:
            self._hello(message, now, events)
        else:
            self._deadline = now + self._idle_timeout
            events.append(Received(message))

    def _hello(self, hello: Hello, now: float, events: list[Event]) -> None:
        """Admit a stranger for what it asks."""
        if hello.version != VERSION:
            raise WrongVersionError(hello.version, VERSION)
        self._admit(LinkClass(hello.link), None, now, events)

    def _put(self, message: Message) -> None:
        frame = encode(message)
        self._queue.append(frame)
        self.bytes_buffered += len(frame)

    # --- Endings

    def _refuse(self, refusal: Refusal, events: list[Event]) -> None:
        """End it because of who the peer is: it learns the code and our time."""
        closed = Closed(
            refusal.code,
            refusal.text,
            by_peer=False,
            time=refusal.time,
            retry_after=refusal.retry_after,
        )
        self._say_close(closed, "")
        self._end(closed, events)

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> None:
        """End it because of what the peer did."""
        closed = Closed(error.close_code, str(error), by_peer=isinstance(error, AlertError))
        self._say_close(closed, "")
        self._end(closed, events)

    def _say_close(self, closed: Closed, text: str) -> None:
        """Queue a CLOSE frame, where there is a TLS connection that can carry it."""
        if self.state is _CLOSED or not self._tls.writable:
            return
        text = text[:MAX_TEXT].encode(errors="replace").decode()
        self._put(
            Close(code=closed.code, text=text, time=closed.time, retry_after=closed.retry_after)
        )

    def _end(self, closed: Closed, events: list[Event]) -> None:
        """The one ending: every way out passes here, and only the first counts."""
        if self.state is _CLOSED:
            return
        self.state = advance(self.state, Trigger.ENDED)
        shown = self._chain or self._tls.shown_chain()
        if not self._tls.writable:
            self._queue.clear()
            self.bytes_buffered = 0
        events.append(msgspec.structs.replace(closed, shown_chain=shown) if shown else closed)


_LIMITS: Final = Limits()


def _limits_of(
    frames: Mapping[FrameType, int], types: frozenset[type[Message]]
) -> Mapping[int, int]:
    return {message.FRAME: frames[message.FRAME] for message in types}


@lru_cache(maxsize=64)
def _usual_limits(types: frozenset[type[Message]]) -> Mapping[int, int]:
    """The same for every link of a class between two roles, and kept once."""
    return _limits_of(FRAME_LIMITS, types)


@lru_cache(maxsize=64)
def _where(link_class: LinkClass, remote: str, local: str) -> str:
    """How errors name such a link: the same text for all of them."""
    return f"the {link_class} link from {remote} to {local}"


_BEFORE_HELLO: Final[frozenset[type[Message]]] = frozenset({Hello, Close})
_HELLO: Final = {
    LinkClass.DISCOVERY: Hello(link="discovery"),
    LinkClass.ENROLMENT: Hello(link="enrolment"),
}


def _closed_by(close: Close) -> Closed:
    """Return the ending that a peer's CLOSE frame announces."""
    try:
        code, text = CloseCode(close.code), close.text
    except ValueError:
        code, text = CloseCode.INTERNAL, f"unknown close code {close.code}"
    return Closed(code, text, by_peer=True, time=close.time, retry_after=close.retry_after)
