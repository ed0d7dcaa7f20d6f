"""What OpenSSL is asked for every record, without what pyOpenSSL puts around it.

pyOpenSSL checks what it is given, asks after each call how it went, and raises where there is
nothing yet: that costs as much as the call. Here only a call that gave nothing is asked why, by
pyOpenSSL's own question, so its errors are the same.

A memory BIO keeps the room that its largest flight took, for as long as the link stands, and
pyOpenSSL has no way to give it back. `shed` puts empty ones in their place: OpenSSL frees the old
ones, as it frees the last ones with the connection.

What OpenSSL has verified ends at a certificate of the context's own store, nearly always. That one
is known by where it lies in memory, and nobody has to write it out again: `anchor` says where, and
`verified` asks for it. It is what OpenSSL took from its store, never what the peer has shown.

pyOpenSSL keeps a weak reference to every connection, by which its callbacks find theirs. We have no
callback, and `Connection` is not kept.

This reaches into pyOpenSSL (ADR 0011). A self-test when this module is imported tries what is
reached for; where it is not there, or not what it was, pyOpenSSL's public calls are used.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from protocol.records import GCM_OVERHEAD, MAX_PLAINTEXT, RECORD_HEADER

__all__ = ["CALLS", "Calls", "Chain", "Connection", "Direct", "Public"]

_SMALL: Final = 4096
"""Bytes up to which a view is copied: that is cheaper than to lend it."""
_SEALED: Final = RECORD_HEADER + GCM_OVERHEAD
_RECORD: Final = MAX_PLAINTEXT + _SEALED
"""Bytes of the largest record."""
_REFUSED: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""A record with the fatal alert "handshake failure"."""

# Room that is written before it is read needs no zeros first.
_room: Final = ffi.new_allocator(should_clear_after_alloc=False)
_bytes_of: Final = ffi.unpack  # to look it up takes as long as to copy a frame
_rooms: Final[list[Any]] = []
"""Rooms for a record that nobody is using: who needs one takes it out, so none has two users."""

Chain = tuple[bytes, ...]
"""Certificates (DER), each signed by the next, the root last."""

Ciphertext = bytes | bytearray | memoryview
Plaintext = bytes | memoryview


class _Forgetful(dict[Any, SSL.Connection]):
    """A map that remembers nothing."""

    def __setitem__(self, _handle: Any, _connection: SSL.Connection) -> None:  # noqa: ANN401
        """Forget it at once."""


class Connection(SSL.Connection):
    """A connection that callbacks do not find: there are none (`protocol.tls`, 1)."""

    _reverse_mapping = _Forgetful()


class Calls(Protocol):
    """Ciphertext in and out, plaintext in and out."""

    def shake(self, connection: SSL.Connection) -> bool:
        """Go on with the handshake; True when it is done.

        Raises:
            SSL.Error: It has failed.
        """
        ...

    def take(self, connection: SSL.Connection) -> bytes:
        """Take all ciphertext that there is for the peer."""
        ...

    def decrypt(
        self, connection: SSL.Connection, data: Ciphertext, size: int
    ) -> tuple[Plaintext, SSL.Error | None]:
        """Give ciphertext of the peer; return `size` bytes of plaintext.

        If they are fewer, the second value says what ended them.
        """
        ...

    def encrypt(self, connection: SSL.Connection, data: bytes) -> bytes:
        """Encrypt all of this, and take it.

        Raises:
            SSL.Error: Nothing can be written.
        """
        ...

    def shed(self, connection: SSL.Connection) -> bool:
        """Give back the room of ciphertext; False while there is some in it, to be tried again."""
        ...

    def anchor(self, certificate: crypto.X509) -> object:
        """Return by what `verified` knows this certificate of a store, while the object lives."""
        ...

    def verified(
        self, connection: SSL.Connection, anchors: Mapping[object, Chain]
    ) -> tuple[Chain, Chain]:
        """Return the peer's chain as OpenSSL verified it, leaf first; empty where there is none.

        In two parts: up to the anchor that OpenSSL trusts, and the chain of that.

        Args:
            connection: Whose handshake is done.
            anchors: The chains of the certificates in its store, by their DER, and by `anchor`.
        """
        ...


class Public:
    """By pyOpenSSL's documented calls."""

    def shake(self, connection: SSL.Connection) -> bool:
        """See `Calls`."""
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def take(self, connection: SSL.Connection) -> bytes:
        """See `Calls`."""
        pieces: list[bytes] = []
        try:
            while True:
                pieces.append(connection.bio_read(_RECORD))
        except SSL.WantReadError:
            return b"".join(pieces)

    def decrypt(
        self, connection: SSL.Connection, data: Ciphertext, size: int
    ) -> tuple[Plaintext, SSL.Error | None]:
        """See `Calls`."""
        pieces: list[bytes] = []
        error: SSL.Error | None = None
        if data:
            connection.bio_write(data)
        try:
            while size > 0:  # a call returns at most one record
                pieces.append(connection.recv(min(size, MAX_PLAINTEXT)))
                size -= len(pieces[-1])
        except SSL.Error as exc:
            error = exc
        return b"".join(pieces), error

    def encrypt(self, connection: SSL.Connection, data: bytes) -> bytes:
        """See `Calls`."""
        connection.send(data)
        return self.take(connection)

    def shed(self, connection: SSL.Connection) -> bool:
        """See `Calls`: nothing is given back, and there is no more to try."""
        return True

    def anchor(self, certificate: crypto.X509) -> object:
        """See `Calls`: its DER."""
        return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    def verified(
        self, connection: SSL.Connection, anchors: Mapping[object, Chain]
    ) -> tuple[Chain, Chain]:
        """See `Calls`."""
        # `as_cryptography` would encode each, parse it, and have it encoded again here.
        chain = connection.get_verified_chain() or ()
        ders = [crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in chain]
        last = tuple(ders[-1:])
        return tuple(ders[:-1]), anchors.get(ders[-1], last) if ders else last


class Direct:
    """By the functions of OpenSSL themselves."""

    def shake(self, connection: Any) -> bool:  # noqa: ANN401
        """See `Calls`."""
        done = lib.SSL_do_handshake(connection._ssl)
        if done == 1:
            return True
        if lib.SSL_get_error(connection._ssl, done) != lib.SSL_ERROR_WANT_READ:
            connection._raise_ssl_error(connection._ssl, done)
        return False

    def take(self, connection: Any) -> bytes:  # noqa: ANN401
        """See `Calls`."""
        return _drained(connection._from_ssl)

    def decrypt(
        self,
        connection: Any,  # noqa: ANN401
        data: Ciphertext,
        size: int,
    ) -> tuple[Plaintext, SSL.Error | None]:
        """See `Calls`."""
        given = len(data)
        if given <= _SMALL:
            copy = data.tobytes() if isinstance(data, memoryview) else bytes(data)
            done = lib.BIO_write(connection._into_ssl, copy, given)
        else:
            with ffi.from_buffer(data) as lent:
                done = lib.BIO_write(connection._into_ssl, lent, given)
        if done != given:
            raise MemoryError(f"OpenSSL took {done} of {given} bytes")
        if not size:
            return b"", None
        room = _borrow() if size <= MAX_PLAINTEXT else _room("char[]", size)
        filled, error = 0, None
        done = lib.SSL_read(connection._ssl, room, size)
        while 0 < done < size - filled:  # a call returns at most one record
            filled += done
            done = lib.SSL_read(connection._ssl, room + filled, size - filled)
        if done > 0:
            filled += done
        else:
            error = _why(connection, done)
        if size > MAX_PLAINTEXT:
            return memoryview(ffi.buffer(room, filled)), error
        plaintext: bytes = _bytes_of(room, filled)
        _rooms.append(room)
        return plaintext, error

    def encrypt(self, connection: Any, data: bytes) -> bytes:  # noqa: ANN401
        """See `Calls`."""
        size = len(data)
        done = lib.SSL_write(connection._ssl, data, size)
        if done <= 0:
            connection._raise_ssl_error(connection._ssl, done)
        if size <= MAX_PLAINTEXT:
            return _drained(connection._from_ssl)
        expected = size + -(-size // MAX_PLAINTEXT) * _SEALED
        room = _room("char[]", expected)
        done = lib.BIO_read(connection._from_ssl, room, expected)
        sealed: bytes = _bytes_of(room, done)
        rest = _drained(connection._from_ssl)
        return sealed + rest if rest else sealed

    def shed(self, connection: Any) -> bool:  # noqa: ANN401
        """See `Calls`."""
        for used in (connection._into_ssl, connection._from_ssl):
            if lib.BIO_get_mem_data(used, ffi.NULL) > 0:
                return False
        fresh = lib.BIO_new(lib.BIO_s_mem()), lib.BIO_new(lib.BIO_s_mem())
        if ffi.NULL in fresh:
            raise MemoryError("OpenSSL has no room for a BIO")
        lib.SSL_set_bio(connection._ssl, *fresh)
        connection._into_ssl, connection._from_ssl = fresh
        return True

    def anchor(self, certificate: Any) -> object:  # noqa: ANN401
        """See `Calls`: the pointer to it, if it is one."""
        known = Public().anchor(certificate)
        pointer = getattr(certificate, "_x509", None)
        return pointer if pointer is not None and _encoded(pointer) == known else known

    def verified(
        self,
        connection: Any,  # noqa: ANN401
        anchors: Mapping[object, Chain],
    ) -> tuple[Chain, Chain]:
        """See `Calls`."""
        found: list[bytes] = []
        stack = lib.SSL_get0_verified_chain(connection._ssl)
        for place in range(0 if stack == ffi.NULL else lib.sk_X509_num(stack)):
            one = lib.sk_X509_value(stack, place)
            if one in anchors:
                return tuple(found), anchors[one]
            found.append(_encoded(one))
        return Public().verified(connection, anchors)


def _borrow() -> Any:  # noqa: ANN401
    """Take out a room for a record, to be put back into `_rooms`."""
    try:
        return _rooms.pop()
    except IndexError:
        return _room("char[]", _RECORD)


def _drained(bio: Any) -> bytes:  # noqa: ANN401
    """Take all that is in a BIO."""
    room = _borrow()
    done = lib.BIO_read(bio, room, _RECORD)
    data: bytes = _bytes_of(room, done) if done > 0 else b""
    _rooms.append(room)
    # A record, or a flight of the handshake, nearly always.
    return data if done < _RECORD else data + _drained(bio)


def _why(connection: Any, done: int) -> SSL.Error:  # noqa: ANN401
    """Return why OpenSSL gave nothing."""
    try:
        connection._raise_ssl_error(connection._ssl, done)
    except SSL.Error as exc:
        return exc
    raise AssertionError("OpenSSL gave nothing, and there is no error")


def _encoded(certificate: Any) -> bytes:  # noqa: ANN401
    """Return the DER of a certificate of OpenSSL."""
    written = lib.BIO_new(lib.BIO_s_mem())
    try:
        if lib.i2d_X509_bio(written, certificate) != 1:
            raise MemoryError("OpenSSL has no room for a certificate")
        return _drained(written)
    finally:
        lib.BIO_free(written)


def _chosen() -> Calls:
    """The direct calls, if a connection answers to them as they expect."""
    connection: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_connect_state()
    direct = Direct()
    try:
        return direct if _fits(connection, direct) else Public()
    except (AttributeError, TypeError, SSL.Error):
        return Public()


def _fits(connection: Any, direct: Direct) -> bool:  # noqa: ANN401
    """Whether all that `Direct` reaches for is there, and does to a new connection what it should.

    Raises:
        AttributeError, TypeError, SSL.Error: Something is not there, or not of its kind.
    """
    # Nobody is verified here; that the rest of `verified` is there is all that can be seen.
    there = lib.sk_X509_num, lib.sk_X509_value, lib.i2d_X509_bio, lib.BIO_free
    if not all(there) or any(direct.verified(connection, {})):
        return False
    # What is put arrives, and is not shed.
    direct.decrypt(connection, b"no TLS", 0)
    heard = _room("char[]", 9)
    if direct.shed(connection) or lib.BIO_read(connection._into_ssl, heard, 9) != len(b"no TLS"):
        return False
    # Before the peer's first flight there is nothing to take, to read, or to write with.
    if not direct.shed(connection) or direct.take(connection):
        return False
    data, error = direct.decrypt(connection, b"", 9)
    if data or not isinstance(error, SSL.WantReadError):
        return False
    if not _refuses_to_write(direct, connection):
        return False
    # OpenSSL speaks through the fresh BIO, and hears through the next.
    if direct.shake(connection) or not direct.take(connection).startswith(b"\x16\x03"):
        return False
    direct.shed(connection)
    direct.decrypt(connection, _REFUSED, 0)
    try:
        direct.shake(connection)
    except SSL.WantReadError:
        return False
    except SSL.Error:
        return True
    return False


def _refuses_to_write(direct: Direct, connection: SSL.Connection) -> bool:
    try:
        direct.encrypt(connection, b"x")
    except SSL.WantReadError:
        return True
    return False


CALLS: Final[Calls] = _chosen()
"""How this process calls OpenSSL."""
