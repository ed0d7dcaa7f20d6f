"""The calls of OpenSSL that every record passes, without what pyOpenSSL puts around them.

pyOpenSSL checks what it is given and asks after each call how it went, which costs as much as the
call. Here only a call that gave nothing is asked why, by pyOpenSSL's own question, so its errors
are the same.

A memory BIO keeps the room that its largest flight took, for as long as the link stands. pyOpenSSL
has no way to give it back, so `shed` puts empty ones in their place: OpenSSL frees the old ones,
as it frees the last ones with the connection.

What OpenSSL has verified ends at a certificate of the context's own store, nearly always. That one
is known by where it lies in memory, and nobody has to write it out again: `anchor` says where, and
`verified` asks for it. It is what OpenSSL took from its store, never what the peer has shown.

This reaches into pyOpenSSL (ADR 0011). A self-test when this module is imported tries what is
reached for; where it is not there, or not what it was, pyOpenSSL's public calls are used.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

__all__ = ["CALLS", "Calls", "Direct", "Public"]

_SMALL: Final = 4096
"""Bytes up to which a view is copied: that is cheaper than to lend it."""

_REFUSED: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""A record with the fatal alert "handshake failure"."""

# Room that is written before it is read needs no zeros first.
_room: Final = ffi.new_allocator(should_clear_after_alloc=False)


Chain = tuple[bytes, ...]
"""Certificates (DER), each signed by the next, the root last."""


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

    def anchor(self, certificate: crypto.X509) -> object:
        """Return by what `verified` knows this certificate of a store, while the object lives."""
        ...

    def verified(self, connection: SSL.Connection, anchors: Mapping[object, Chain]) -> Chain:
        """Return the peer's chain as OpenSSL verified it, leaf first; empty where there is none.

        It ends with the chain of an anchor.

        Args:
            connection: Whose handshake is done.
            anchors: The chains of the certificates in its store, by their DER, and by `anchor`.
        """
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

    def anchor(self, certificate: crypto.X509) -> object:
        """See `Calls`: its DER."""
        return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    def verified(self, connection: SSL.Connection, anchors: Mapping[object, Chain]) -> Chain:
        """See `Calls`."""
        # `as_cryptography` would encode each, parse it, and have it encoded again here.
        chain = connection.get_verified_chain() or ()
        ders = [crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in chain]
        return (*ders[:-1], *(anchors.get(ders[-1], ders[-1:]) if ders else ()))


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

    def anchor(self, certificate: Any) -> object:  # noqa: ANN401
        """See `Calls`: the pointer to it, if it is one."""
        known = Public().anchor(certificate)
        pointer = getattr(certificate, "_x509", None)
        return pointer if pointer is not None and _encoded(pointer) == known else known

    def verified(self, connection: Any, anchors: Mapping[object, Chain]) -> Chain:  # noqa: ANN401
        """See `Calls`."""
        found: list[bytes] = []
        stack = lib.SSL_get0_verified_chain(connection._ssl)
        for place in range(0 if stack == ffi.NULL else lib.sk_X509_num(stack)):
            one = lib.sk_X509_value(stack, place)
            if one in anchors:
                return (*found, *anchors[one])
            found.append(_encoded(one))
        return Public().verified(connection, anchors)


def _encoded(certificate: Any) -> bytes:  # noqa: ANN401
    """Return the DER of a certificate of OpenSSL."""
    written = lib.BIO_new(lib.BIO_s_mem())
    try:
        if lib.i2d_X509_bio(written, certificate) != 1:
            raise MemoryError("OpenSSL has no room for a certificate")
        start = ffi.new("char **")
        size = lib.BIO_get_mem_data(written, start)
        return bytes(ffi.buffer(start[0], size))
    finally:
        lib.BIO_free(written)


def _chosen() -> Calls:
    """The direct calls, if a connection answers to them as they expect."""
    connection: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_connect_state()
    direct = Direct()
    try:
        direct.put(connection, b"no TLS")
        heard = _room("char[]", 9)
        # Nobody is verified here; that the rest of `verified` is there is all that can be seen.
        if direct.verified(connection, {}) or not (
            lib.sk_X509_num and lib.sk_X509_value and lib.i2d_X509_bio and lib.BIO_free
        ):
            return Public()
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
