"""The calls of OpenSSL that every record passes, without what pyOpenSSL puts around them.

pyOpenSSL checks what it is given and asks after each call how it went, which costs as much as the
call. Here only a call that gave nothing is asked why, by pyOpenSSL's own question, so its errors
are the same.

A memory BIO keeps the room that its largest flight took, for as long as the link stands. pyOpenSSL
has no way to give it back, so `shed` puts empty ones in their place: OpenSSL frees the old ones,
as it frees the last ones with the connection.

This reaches into pyOpenSSL (ADR 0011). A self-test when this module is imported tries what is
reached for; where it is not there, or not what it was, pyOpenSSL's public calls are used.
"""

from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

__all__ = ["CALLS", "Calls", "Direct", "Public"]

_SMALL: Final = 4096
"""Bytes up to which a view is copied: that is cheaper than to lend it."""

_REFUSED: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""A record with the fatal alert "handshake failure"."""

# Room that is written before it is read needs no zeros first.
_room: Final = ffi.new_allocator(should_clear_after_alloc=False)


class Calls(Protocol):
    """Ciphertext in and out, plaintext in and out; raises what pyOpenSSL raises."""

    def put(self, connection: SSL.Connection, data: bytes | bytearray | memoryview) -> None:
        """Give OpenSSL ciphertext of the peer."""
        ...

    def take(self, connection: SSL.Connection, size: int) -> bytes:
        """Take up to `size` bytes of ciphertext for the peer."""
        ...

    def read(self, connection: SSL.Connection, size: int) -> bytes:
        """Decrypt up to one record, of up to `size` bytes."""
        ...

    def write(self, connection: SSL.Connection, data: bytes) -> None:
        """Encrypt all of this."""
        ...

    def shed(self, connection: SSL.Connection) -> bool:
        """Give back the room of ciphertext; False while there is some in it, to be tried again."""
        ...


class Public:
    """By pyOpenSSL's documented calls."""

    def put(self, connection: SSL.Connection, data: bytes | bytearray | memoryview) -> None:
        """See `Calls`."""
        connection.bio_write(data)

    def take(self, connection: SSL.Connection, size: int) -> bytes:
        """See `Calls`."""
        return connection.bio_read(size)

    def read(self, connection: SSL.Connection, size: int) -> bytes:
        """See `Calls`."""
        return connection.recv(size)

    def write(self, connection: SSL.Connection, data: bytes) -> None:
        """See `Calls`."""
        connection.send(data)

    def shed(self, connection: SSL.Connection) -> bool:
        """See `Calls`: nothing is given back, and there is no more to try."""
        return True


class Direct:
    """By the functions of OpenSSL themselves."""

    def put(self, connection: Any, data: bytes | bytearray | memoryview) -> None:  # noqa: ANN401
        """See `Calls`."""
        size = len(data)
        if size <= _SMALL:
            done = lib.BIO_write(connection._into_ssl, bytes(data), size)
        else:
            with ffi.from_buffer(data) as lent:
                done = lib.BIO_write(connection._into_ssl, lent, size)
        if done != size:
            raise MemoryError(f"OpenSSL took {done} of {size} bytes")

    def take(self, connection: Any, size: int) -> bytes:  # noqa: ANN401
        """See `Calls`."""
        buffer = _room("char[]", size)
        done = lib.BIO_read(connection._from_ssl, buffer, size)
        if done <= 0:
            return Public().take(connection, size)  # nothing was taken: it says why
        return bytes(ffi.buffer(buffer, done))

    def read(self, connection: Any, size: int) -> bytes:  # noqa: ANN401
        """See `Calls`."""
        buffer = _room("char[]", size)
        done = lib.SSL_read(connection._ssl, buffer, size)
        if done <= 0:
            connection._raise_ssl_error(connection._ssl, done)
        return bytes(ffi.buffer(buffer, done))

    def write(self, connection: Any, data: bytes) -> None:  # noqa: ANN401
        """See `Calls`."""
        done = lib.SSL_write(connection._ssl, data, len(data))
        if done <= 0:
            connection._raise_ssl_error(connection._ssl, done)

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


def _chosen() -> Calls:
    """The direct calls, if a connection answers to them as they expect."""
    connection: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_connect_state()
    direct = Direct()
    try:
        direct.put(connection, b"no TLS")
        heard = _room("char[]", 9)
        if direct.shed(connection) or lib.BIO_read(connection._into_ssl, heard, 9) != 6:
            return Public()
        if not direct.shed(connection):
            return Public()
        # Before the peer's first flight there is nothing to take, to read, or to write with.
        attempts = (
            lambda: direct.take(connection, 9),
            lambda: direct.read(connection, 9),
            lambda: direct.write(connection, b"x"),
        )
        for attempt in attempts:
            try:
                attempt()
            except SSL.WantReadError:
                continue
            return Public()
        # OpenSSL speaks through the fresh BIO, and hears through the next.
        if not direct.take(connection, 4096).startswith(b"\x16\x03"):
            return Public()
        direct.shed(connection)
        direct.put(connection, _REFUSED)
        try:
            direct.read(connection, 9)
        except SSL.WantReadError:
            return Public()
        except SSL.Error:
            pass
    except (AttributeError, TypeError):
        return Public()
    return direct


CALLS: Final[Calls] = _chosen()
"""How this process calls OpenSSL."""
