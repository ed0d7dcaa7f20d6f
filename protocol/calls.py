"""The four calls of OpenSSL that every record passes, without what pyOpenSSL puts around them.

pyOpenSSL gives each call a buffer of its own, and asks after each how it went: 1 microsecond and
more, four times for a request and its answer, where OpenSSL itself takes half of that for all
four. Here the buffer is one for all connections of a thread, and only a call that gave nothing is
asked why, by pyOpenSSL's own question, so that its errors are the same.

This reaches into pyOpenSSL (ADR 0011). A self-test when this module is imported tries what is
reached for; where it is not there, or not what it was, pyOpenSSL's public calls are used.
"""

import threading
from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

__all__ = ["CALLS", "Calls", "Direct", "Public"]

_SCRATCH: Final = 128 * 1024
"""Bytes of the one buffer of a thread; what is larger goes the public way."""
_SMALL: Final = 4096
"""Bytes up to which a view is copied: that is cheaper than to lend it."""


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


class _Scratch(threading.local):
    """The buffer of each thread: OpenSSL runs without the interpreter's lock."""

    def __init__(self) -> None:
        self.buffer: Any = ffi.new("char[]", _SCRATCH)


class Direct:
    """By the functions of OpenSSL themselves."""

    def __init__(self) -> None:
        self._scratch = _Scratch()
        self._public = Public()

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
        if size > _SCRATCH:
            return self._public.take(connection, size)
        buffer = self._scratch.buffer
        done = lib.BIO_read(connection._from_ssl, buffer, size)
        if done <= 0:
            return self._public.take(connection, size)  # nothing was taken: it says why
        return bytes(ffi.buffer(buffer, done))

    def read(self, connection: Any, size: int) -> bytes:  # noqa: ANN401
        """See `Calls`."""
        buffer = self._scratch.buffer
        done = lib.SSL_read(connection._ssl, buffer, min(size, _SCRATCH))
        if done <= 0:
            connection._raise_ssl_error(connection._ssl, done)
        return bytes(ffi.buffer(buffer, done))

    def write(self, connection: Any, data: bytes) -> None:  # noqa: ANN401
        """See `Calls`."""
        done = lib.SSL_write(connection._ssl, data, len(data))
        if done <= 0:
            connection._raise_ssl_error(connection._ssl, done)


def _chosen() -> Calls:
    """The direct calls, if a connection answers to them as they expect."""
    connection: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_connect_state()
    direct = Direct()
    try:
        direct.put(connection, b"no TLS")
        if lib.BIO_read(connection._into_ssl, direct._scratch.buffer, 9) != len(b"no TLS"):
            return Public()
        # Before the first flight OpenSSL has nothing to give, to read or to write.
        for call in (direct.take, direct.read):
            try:
                call(connection, 9)
            except SSL.WantReadError:
                continue
            return Public()
        if not direct.take(connection, _SCRATCH).startswith(b"\x16\x03"):
            return Public()
    except (AttributeError, TypeError):
        return Public()
    return direct


CALLS: Final[Calls] = _chosen()
"""How this process calls OpenSSL."""
