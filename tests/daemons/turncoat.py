"""A server with the right key that speaks as it should, and lies in one thing.

It hands on what a client asks to the honest server, with the client's own key, which it has as
well: so everything that it says is true, down to the token, but for the lie. That it tells once.
Whoever dials it after that reaches the honest server itself, once the test has let him.
"""

import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import msgspec

from pki.certificates import Kind
from protocol.codes import CloseCode
from protocol.frames import FrameType, encode_frame
from protocol.link import Closed, Link, Opened, Received
from protocol.messages import (
    Ack,
    Done,
    HeadNotice,
    LedgerEntries,
    LedgerGet,
    Message,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
)
from protocol.tls import Credentials
from tests.daemons.caller import Caller
from tests.daemons.siege import make_link
from tests.daemons.trap import Dial, Lures, Trap
from tests.support.daemons import Daemon
from tests.support.nursery import PATIENCE
from tests.support.thief import stolen

__all__ = ["Lie", "Turncoat", "fields_of", "misled"]

Fields = Mapping[str, Any]
CALL: Final = 4_000_000_000
"""Number of what nobody has asked for."""
GLANCE: Final = 0.1
"""Seconds between two looks at whether the test has seen enough."""


def fields_of(message: Message) -> dict[str, Any]:
    """What a message says, to be changed."""
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert isinstance(fields, dict)
    return fields


@dataclass(frozen=True)
class Lie:
    """What is said wrongly: fields instead of those of an honest answer, or a message unasked.

    `news` comes before it: the HEAD that has the victim ask for the ledger.
    """

    frame: FrameType
    fields: Fields
    news: bytes | None = None


class _Talk:
    """One link, until the lie was told on it and its consequences have been seen."""

    def __init__(
        self, turncoat: "Turncoat", sock: socket.socket, link: Link, asks: Caller | None
    ) -> None:
        self._turncoat = turncoat
        self._lie_to_tell = turncoat.lie
        self._sock = sock
        self._link = link
        self._asks = asks

    def carry(self) -> None:
        """Be in order until the lie; then until the victim ends it, or the test has seen enough."""
        link, turncoat = self._link, self._turncoat
        while True:
            self._sock.sendall(link.data_to_send())
            if not select.select([self._sock], [], [], GLANCE)[0]:
                if turncoat.lied and turncoat.open.is_set():
                    link.close(CloseCode.NORMAL, now=0.0)
                    self._sock.sendall(link.data_to_send())
                    return
                continue
            data = self._sock.recv(65536)
            for event in link.receive_data(data, 0.0) if data else link.receive_eof(0.0):
                match event:
                    case Opened():
                        pass
                    case Closed():
                        return
                    case Received(message=Done() | Refused() as answer):
                        turncoat.answers.append(answer)
                    case Received(message=message):
                        self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case Ping():
                self._link.send(Pong(id=message.id, call=message.call))
            case Ack():
                self._unasked()
                self._link.send(Done(call=message.call))
            case LedgerGet():
                honest = LedgerEntries(slot=message.slot, first=message.n, entries=[])
                self._answer(honest, message.call)
            case Register():
                self._unasked()
                self._answer(self._registered(message), message.call)
            case _:
                raise AssertionError(f"{message!r} is not expected of {self._turncoat.victim}")

    def _registered(self, message: Register) -> Message | Closed:
        """What the honest server says; a zone server's token is of its own making."""
        if self._asks is None:
            return Registered(token=bytes(16), observed="127.0.0.1", leader=True)
        return self._asks.ask(message)

    def _unasked(self) -> None:
        """Tell what nobody asked for."""
        if self._turncoat.lied:
            return
        if self._lie_to_tell.news is not None:
            self._link.send(HeadNotice(head=self._lie_to_tell.news, call=CALL))
        elif self._lie_to_tell.frame in (FrameType.HEAD_NOTICE, FrameType.SETTINGS):
            self._lie({}, CALL)

    def _answer(self, honest: Message | Closed, call: int) -> None:
        assert isinstance(honest, Message), honest
        if self._lie_to_tell.frame is honest.FRAME and not self._turncoat.lied:
            self._lie(fields_of(honest), call)
        else:
            self._link.send(msgspec.structs.replace(honest, call=call))

    def _lie(self, honest: Fields, call: int) -> None:
        self._turncoat.lied = True
        body = msgpack.packb(
            {**honest, **self._lie_to_tell.fields, "call": call}, use_bin_type=True
        )
        self._link._tls.write(encode_frame(self._lie_to_tell.frame, body))


class Turncoat(Trap):
    """Lies on the first link, and is no more than a cable from then on.

    Args:
        honest: where the server is.
        role: as whom he is dialled.
        victim: the role of who dials.
        theirs: the victim's own key, for what is asked of the server in its name.
    """

    def __init__(
        self,
        address: tuple[str, int],
        lie: Lie,
        *,
        honest: tuple[str, int],
        shown: Credentials,
        roots: tuple[bytes, ...],
        role: str,
        victim: str,
        theirs: Credentials,
    ) -> None:
        self.lie = lie
        self.shown = shown
        self.victim = victim
        self.lied = False
        self.answers: list[Message] = []
        """What the victim said to what it was told unasked."""
        self.open = threading.Event()
        """Set by a test that has seen enough: from then on there is a way to the server."""

        def treat(sock: socket.socket) -> None:
            if self.lied:
                self.open.wait(PATIENCE)
                threading.Thread(target=_join, args=(sock.dup(), honest), daemon=True).start()
                return
            link = make_link(shown, roots, role=role, victim=victim, server_side=True)
            with ExitStack() as stack:
                asks = None
                if (role, victim) == ("server", "client"):
                    other = stack.enter_context(socket.create_connection(honest))
                    asks = Caller(other, theirs, roots)
                with suppress(ConnectionError):
                    _Talk(self, sock, link, asks).carry()

        super().__init__(address, treat)


def _join(near: socket.socket, honest: tuple[str, int]) -> None:
    """Be a cable between two sockets, until one end is let go."""
    with near, socket.create_connection(honest) as far, suppress(ConnectionError):
        other = {near: far, far: near}
        while True:
            ready, _, _ = select.select(list(other), [], [], PATIENCE)
            for sock in ready:
                data = sock.recv(65536)
                if not data:
                    return
                other[sock].sendall(data)


@contextmanager
def misled(lures: Lures, dial: Dial, lie: Lie) -> Iterator[tuple[Daemon, Turncoat]]:
    """A victim that dials somebody who has what it expects, and lies."""
    siege = lures.siege
    victim = lures.victim(dial)
    held = stolen(victim, {"client": Kind.CLIENT_TLS, "hub": Kind.HUB_TLS}[dial.victim])
    with (
        Turncoat(
            lures.address(dial),
            lie,
            honest=(siege.site.address(1), siege.site.port),
            shown=lures.honest(dial),
            roots=siege.roots,
            role=dial.expects.value.removesuffix("-tls"),
            victim=dial.victim,
            theirs=Credentials(held.chain, held.key),
        ) as turncoat,
        lures.dialling(dial) as daemon,
    ):
        try:
            yield daemon, turncoat
        finally:
            turncoat.open.set()
