"""TLS records, as far as they can be read without keys (RFC 5246, section 6.2).

OpenSSL decides what a record means. This scanner answers three questions that OpenSSL
answers late, dearly or not at all:

1. How many bytes of plaintext can be read now? Asking OpenSSL costs an exception each
   time. A TLS 1.2 AES-GCM record of n bytes holds exactly n - 24 (RFC 5288): an
   explicit nonce of 8, a tag of 16. A balance that were too large would make a reader
   wait for bytes that never come, so it counts whole application records only, and asks
   for a `probe` after every record that is neither that nor a part of the handshake.
2. Is this TLS at all? Plain text on a TLS port is told by its first bytes.
3. Whose certificate was that? TLS 1.2 shows certificates in clear. After a refusal
   OpenSSL does not say which it refused; the log wants to.
"""

from struct import Struct
from typing import Final

from protocol.errors import TLSError

__all__ = ["GCM_OVERHEAD", "MAX_PLAINTEXT", "RECORD_HEADER", "RecordScanner"]

RECORD_HEADER: Final = 5
"""Bytes of a record's header: type, version, length."""
GCM_OVERHEAD: Final = 24
"""Bytes that AES-GCM adds to a record's plaintext in TLS 1.2."""
MAX_PLAINTEXT: Final = 2**14
"""Largest plaintext of a record."""

_HEADER: Final = Struct(">BBBH")
_ALONE: Final = Struct(">HxH")
_MAX_RECORD: Final = MAX_PLAINTEXT + 2048
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION = 20, 21, 22, 23
_TYPES: Final = frozenset({_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION})
_MAJOR: Final = 3
_APPLICATION_3: Final = _APPLICATION << 8 | _MAJOR
_CERTIFICATE: Final = 11
_LENGTH: Final = 3
_MAX_SHOWN: Final = 8
"""Certificates of a peer that are remembered."""


class RecordScanner:
    """Follows one direction of a TLS 1.2 connection.

    `plaintext` and `probe` say what to do next; the owner sets them back.
    """

    __slots__ = (
        "_encrypted",
        "_finished",
        "_header",
        "_heard",
        "_left",
        "_size",
        "_type",
        "plaintext",
        "probe",
    )

    def __init__(self) -> None:
        self.plaintext = 0
        """Bytes of application data in records that have arrived whole."""
        self.probe = False
        """Whether a record arrived that only OpenSSL can judge."""
        self._header = b""
        self._type = 0
        self._size = 0
        self._left = 0
        self._encrypted = False
        self._finished = False
        self._heard: bytearray | None = bytearray()
        """All that came until the peer encrypts, which only `shown_chain` reads."""

    def sole(self, data: bytes | bytearray | memoryview) -> int:
        """Return the bytes of plaintext of `data`, if that is one whole application record.

        0 for anything else, and where a piece of a record waits or plaintext is due: that is to
        be fed. Nearly every read brings one record, and `feed` would say the same of it.
        """
        size = len(data) - RECORD_HEADER - GCM_OVERHEAD
        if size <= 0 or self._left or self._header or self.plaintext:
            return 0
        kind, length = _ALONE.unpack_from(data)
        whole = kind == _APPLICATION_3 and length == size + GCM_OVERHEAD <= _MAX_RECORD
        return size if whole else 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Follow the next bytes from the peer.

        Raises:
            TLSError: They are no TLS 1.2 records, or ask for a renegotiation.
        """
        if self._heard is not None and not self._encrypted:
            self._heard += data
        position, end = 0, len(data)
        while position < end:
            # Nearly all records lie whole in `data`. What is cut, empty or no record is left to
            # `_take_cut`, so nothing is decided here that would not be decided there.
            if end - position > RECORD_HEADER and not self._left and not self._header:
                kind, major, _, size = _HEADER.unpack_from(data, position)
                after = position + RECORD_HEADER + size
                if after <= end and major == _MAJOR and 0 < size <= _MAX_RECORD and kind in _TYPES:
                    self._finish(kind, size)
                    position = after
                    continue
            position = self._take_cut(data, position, end)

    def _take_cut(self, data: bytes | bytearray | memoryview, position: int, end: int) -> int:
        """Follow a piece of a record, its header or what comes behind; return where it ends."""
        if not self._left:
            position += self._take_header(data, position)
            if len(self._header) == RECORD_HEADER:
                self._begin()
            return position
        taken = min(self._left, end - position)
        self._left -= taken
        if not self._left:
            self._finish(self._type, self._size)
        return position + taken

    def shown_chain(self) -> tuple[bytes, ...]:
        """Return the certificates (DER, leaf first) that the peer has shown so far.

        Nobody has verified them: they say who was refused, and nothing else.
        """
        messages = _messages(self._heard or b"")
        while len(messages) >= 1 + _LENGTH:
            size = int.from_bytes(messages[1 : 1 + _LENGTH])
            body, messages_after = messages[4 : 4 + size], messages[4 + size :]
            if messages[0] == _CERTIFICATE and len(body) == size:
                return _certificates(body)
            messages = messages_after
        return ()

    def forget(self) -> None:
        """Drop what the handshake showed: the chain has been verified."""
        self._heard = None

    def _take_header(self, data: bytes | bytearray | memoryview, position: int) -> int:
        """Complete the header by what `data` has of it; return the bytes taken."""
        piece = data[position : position + RECORD_HEADER - len(self._header)]
        self._header += bytes(piece)
        if self._header[0] not in _TYPES:
            # One byte only, so that the text does not depend on how the bytes arrived.
            raise TLSError(f"no TLS but plain text or noise: begins with {self._header[:1]!r}")
        if len(self._header) > 1 and self._header[1] != _MAJOR:
            raise TLSError(f"no TLS record: version {self._header[1]}")
        return len(piece)

    def _begin(self) -> None:
        """Start the record whose header is complete."""
        self._type = self._header[0]
        self._size = self._left = int.from_bytes(self._header[3:])
        self._header = b""
        if self._size > _MAX_RECORD:
            raise TLSError(f"TLS record of {self._size} bytes exceeds limit of {_MAX_RECORD} bytes")
        if not self._left:
            self._finish(self._type, self._size)

    def _finish(self, kind: int, size: int) -> None:
        """Account for a record that has arrived whole."""
        if kind == _APPLICATION and size > GCM_OVERHEAD:
            self.plaintext += size - GCM_OVERHEAD
        elif kind == _CHANGE_CIPHER_SPEC and not self._encrypted:
            self._encrypted = True
        elif kind == _HANDSHAKE:
            # Under encryption the first is FINISHED; a second would open a renegotiation.
            if self._finished:
                raise TLSError("the peer asks for a renegotiation")
            self._finished = self._encrypted
        else:
            self.probe = True


def _messages(heard: bytes | bytearray) -> bytes:
    """Return what the records of a handshake carry in clear, the last as far as it came."""
    found, position = bytearray(), 0
    while position + RECORD_HEADER <= len(heard):
        kind, major, _, size = _HEADER.unpack_from(heard, position)
        if kind == _CHANGE_CIPHER_SPEC:
            break  # what follows is encrypted
        if kind not in _TYPES or major != _MAJOR or size > _MAX_RECORD:
            break  # what follows is no record
        position += RECORD_HEADER
        if kind == _HANDSHAKE:
            found += heard[position : position + size]
        position += size
    return bytes(found)


def _certificates(body: bytes) -> tuple[bytes, ...]:
    """Cut the certificates out of a Certificate message (RFC 5246, section 7.4.2)."""
    found: list[bytes] = []
    rest = body[_LENGTH:]
    while len(rest) > _LENGTH and len(found) < _MAX_SHOWN:
        size = int.from_bytes(rest[:_LENGTH])
        found.append(rest[_LENGTH : _LENGTH + size])
        rest = rest[_LENGTH + size :]
    return tuple(found)
