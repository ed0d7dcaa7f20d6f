"""TLS as it should be, and inside it whatever bytes: one end of a connection, in either role.

Nothing here is ours but the numbers of frames: a peer that is none of ours, or one of ours that
has been turned, does not keep to `protocol.link`.
"""

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgpack
from cryptography import x509
from OpenSSL import SSL, crypto

from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.tls import Credentials
from tests.support.nursery import PATIENCE

__all__ = [
    "ALERT",
    "FRAMES",
    "HANDSHAKE",
    "NO_TLS",
    "VERSIONS",
    "Raw",
    "answers_in",
    "frame",
    "loose_context",
    "nested",
    "speaks_only",
    "wait_for_end",
]

ALERT: Final = b"\x15"
"""Record type of an alert, which is all that some deserve."""
HANDSHAKE: Final = 22

NO_TLS: Final[Mapping[str, bytes]] = {
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "zeros": bytes(100),
    "a huge record": b"\x16\x03\x01\xff\xff" + bytes(range(256)) * 40,
    "an empty hello": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "an alert": b"\x15\x03\x03\x00\x02\x02\xff",
    "data before the handshake": b"\x17\x03\x03\x00\x20" + bytes(32),
    "a frame of ours": b"\x00\x00\x00\x01\x03\x80",
}
"""What is no TLS, or none that leads anywhere."""

VERSIONS: Final[Mapping[str, int]] = {"1.1": SSL.TLS1_1_VERSION, "1.3": SSL.TLS1_3_VERSION}


def frame(number: int, body: bytes, *, length: int | None = None) -> bytes:
    """A frame of any type, with any body, that claims any length."""
    return struct.pack(">IB", len(body) if length is None else length, number) + body


def nested(depth: int, name: str = "link") -> bytes:
    """A body with arrays in arrays in a field."""
    return b"\x81" + bytes([0xA0 + len(name)]) + name.encode() + b"\x91" * depth + b"\xc0"


FRAMES: Final[Mapping[str, tuple[bytes, CloseCode]]] = {
    "unknown type": (frame(0xEE, b"\x80"), CloseCode.UNKNOWN_FRAME),
    "hello": (frame(FrameType.HELLO, b"\x81\xa4link\xa9discovery"), CloseCode.NOT_ALLOWED),
    "of another link": (frame(FrameType.REPORT, b"\x80"), CloseCode.NOT_ALLOWED),
    "too large": (frame(FrameType.PING, b"", length=1 << 20), CloseCode.FRAME_TOO_LARGE),
    "deeply nested": (frame(FrameType.PING, nested(60, "id")), CloseCode.PROTOCOL_ERROR),
    "incomplete": (frame(FrameType.PING, b"\x80"), CloseCode.PROTOCOL_ERROR),
    "no message": (frame(FrameType.PING, b"\xc1"), CloseCode.PROTOCOL_ERROR),
}
"""What nobody may say on a member link but a zone server to its hub, and how it ends the link."""


def wait_for_end(sock: socket.socket) -> bytes:
    """Read until the other side has closed."""
    sock.settimeout(PATIENCE)
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def loose_context(shown: Credentials | None, roots: tuple[bytes, ...]) -> SSL.Context:
    """TLS 1.2 with everything else as OpenSSL has it: renegotiation, tickets, resumption."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    if shown is not None:
        leaf, *issuers = map(x509.load_der_x509_certificate, shown.chain)
        context.use_certificate(leaf)
        for issuer in issuers:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(shown.key)
    store = context.get_cert_store()
    assert store is not None
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(root)))
    context.set_verify(SSL.VERIFY_PEER if roots else SSL.VERIFY_NONE)
    return context


def speaks_only(sock: socket.socket, version: str) -> bytes:
    """Be a TLS client that speaks one version only; returns what comes back, to the end."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(VERSIONS[version])
    context.set_max_proto_version(VERSIONS[version])
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    sock.sendall(connection.bio_read(65536))
    return wait_for_end(sock)


def answers_in(sock: socket.socket, version: str) -> bytes:
    """Be a TLS server that chose another version; returns what comes back, to the end."""
    sock.settimeout(PATIENCE)
    sock.recv(65536)
    minor = 2 if version == "1.1" else 3
    extension = b"" if version == "1.1" else b"\x00\x06\x00\x2b\x00\x02\x03\x04"
    body = bytes([3, minor]) + bytes(32) + b"\x00\xc0\x2b\x00" + extension
    hello = b"\x02" + len(body).to_bytes(3) + body
    sock.sendall(bytes([HANDSHAKE, 3, minor]) + len(hello).to_bytes(2) + hello)
    return wait_for_end(sock)


class Raw:
    """One end, after its handshake.

    Args:
        server_side: Whether this is the TLS server, whoever dialled.

    Raises:
        ConnectionError: the other side ended it during the handshake.
    """

    def __init__(
        self, sock: socket.socket, context: SSL.Context, *, server_side: bool = False
    ) -> None:
        sock.settimeout(PATIENCE)
        self._sock = sock
        self._tls = SSL.Connection(context, None)
        if server_side:
            self._tls.set_accept_state()
        else:
            self._tls.set_connect_state()
        while True:
            try:
                self._tls.do_handshake()
                break
            except SSL.WantReadError:
                self._flush()
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("ended during the handshake") from None
                self._tls.bio_write(data)
        self._flush()

    def send(self, data: bytes) -> None:
        """Say these bytes."""
        self._tls.sendall(data)
        self._flush()

    def renegotiate(self) -> bytes:
        """Ask for a second handshake; return the types of the records that come until the end."""
        assert self._tls.renegotiate()
        # It wants an answer, or stumbles over what the other side said before; it has asked.
        with suppress(SSL.Error):
            self._tls.do_handshake()
        self._flush()
        data, kinds = wait_for_end(self._sock), b""
        while data:
            kinds += data[:1]
            data = data[5 + int.from_bytes(data[3:5]) :]
        return kinds

    def close_code(self) -> CloseCode:
        """The code of the CLOSE frame that comes before the end."""
        self._tls.bio_write(wait_for_end(self._sock))
        data = b""
        try:
            while True:
                data += self._tls.recv(65536)
        except SSL.Error:
            pass
        last: CloseCode | None = None
        while data:
            size = int.from_bytes(data[:4])
            if data[4] == FrameType.CLOSE:
                last = CloseCode(msgpack.unpackb(data[5 : 5 + size])["code"])
            data = data[5 + size :]
        assert last is not None
        return last

    def _flush(self) -> None:
        try:
            while True:
                self._sock.sendall(self._tls.bio_read(65536))
        except SSL.WantReadError:
            return
