"""One end of a link to a daemon, over a plain blocking socket: in order first, then as it likes."""

import itertools
import socket
from typing import Any

import msgpack
import msgspec

from pki import certificates, enrolment
from pki.certificates import Kind
from pki.keys import KeyId, PrivateKey
from protocol.access import LinkClass
from protocol.codec import encode
from protocol.frames import FrameType, encode_frame
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import MESSAGES, Enrol, Message, Nonce, NonceGet
from protocol.tls import Credentials, client_context, server_context
from tests.support.components import Component
from tests.support.links import FakePeer
from tests.support.nursery import PATIENCE

__all__ = ["Caller"]

ANSWERS = frozenset().union(*(message.ANSWERS for message in MESSAGES))
"""The types that are answers; every other one with answers is a request."""


class Caller:
    """A link that is open.

    Args:
        sock: connected; whoever made it closes it.
        shown: what this end shows; an enrolment link without.
        role: of this end.
        victim: role of the other end.
        server_side: be the TLS server, as a hub is.
    """

    def __init__(
        self,
        sock: socket.socket,
        shown: Credentials | None,
        roots: tuple[bytes, ...],
        *,
        role: str = "client",
        victim: str = "server",
        server_side: bool = False,
    ) -> None:
        sock.settimeout(PATIENCE)
        self._sock = sock
        self.name: tuple[str, int] = sock.getsockname()
        """Our address and port."""
        self._calls = itertools.count(1)
        self._events: list[Event] = []
        link_class = LinkClass.ENROLMENT if shown is None else LinkClass.MEMBER
        if server_side:
            assert shown is not None
            context = server_context(shown, roots)
        else:
            context = client_context(shown, roots)
        self._link = Link(
            context,
            server_side=server_side,
            local_role=role,
            verify=lambda _chain: FakePeer(victim),
            link_class=None if server_side else link_class,
            handshake_deadline=float("inf"),
            idle_timeout=float("inf"),
        )
        while not self._events:
            self._exchange()
        opened = self._events.pop(0)
        assert isinstance(opened, Opened), opened
        self.chain = opened.chain
        """What the other end has shown."""

    def ask(self, message: Message) -> Message | Closed:
        """Send a message; return its answer, or the end."""
        return self._say(encode(msgspec.structs.replace(message, call=next(self._calls))))

    def ask_fields(self, frame: FrameType, fields: dict[str, Any]) -> Message | Closed:
        """Send a frame with these fields, whatever its type allows."""
        body: bytes = msgpack.packb(fields | {"call": next(self._calls)}, use_bin_type=True)
        return self._say(encode_frame(frame, body))

    def request(
        self,
        who: Component,
        key: PrivateKey,
        *,
        deployment: bytes,
        csr: bytes | None = None,
        host: str = "host",
        secret: str | None = None,
        nonce: bytes | None = None,
    ) -> Enrol:
        """An honest request for a client's certificate on this link, unless told otherwise."""
        nonce = nonce or self.nonce(who)
        csr = certificates.make_request(key, Kind.CLIENT_TLS) if csr is None else csr
        signature = enrolment.sign_request(
            who.identity,
            deployment=deployment,
            issuer=self._issuer,
            nonce=nonce,
            csr=csr,
            binding=self._link.binding(),
        )
        return Enrol(
            kind=Kind.CLIENT_TLS.value,
            csr=csr,
            spki=who.spki,
            nonce=nonce,
            signature=signature,
            host=host,
            secret=secret,
        )

    def nonce(self, who: Component) -> bytes:
        """A nonce for one request of this component."""
        given = self.ask(NonceGet(kind=Kind.CLIENT_TLS.value, spki=who.spki))
        assert isinstance(given, Nonce), given
        return given.nonce

    @property
    def _issuer(self) -> KeyId:
        return certificates.read(self.chain[0]).key_id

    def _say(self, frame: bytes) -> Message | Closed:
        self._sock.sendall(self._link.data_to_send())
        self._link._tls.write(frame)
        self._sock.sendall(self._link._tls.data_to_send())
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, Closed):
                    return event
                if isinstance(event, Received) and type(event.message) in ANSWERS:
                    return event.message
            self._exchange()

    def _exchange(self) -> None:
        self._sock.sendall(self._link.data_to_send())
        try:
            data = self._sock.recv(65536)
        except ConnectionError:
            data = b""
        self._events += self._link.receive_data(data, 0.0) if data else self._link.receive_eof(0.0)
