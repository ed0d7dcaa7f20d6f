"""The few forms of DER in which a certificate is written (X.690, 8 and 10).

    tag | length | content        0x30 0x03 | 0x02 0x01 0x05        SEQUENCE { INTEGER 5 }

A length below 128 is one byte; a longer one says first in how many bytes it stands. Each value has
one form only, so two who write the same certificate write the same bytes.

Nothing is read here. What others have written goes through `cryptography`.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final

__all__ = [
    "BIT_STRING",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "SEQUENCE",
    "SET",
    "TRUE",
    "UTF8_STRING",
    "bits",
    "context",
    "integer",
    "item",
    "time",
]

BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
SEQUENCE: Final = 0x30
SET: Final = 0x31

TRUE: Final = b"\x01\x01\xff"
"""The BOOLEAN that is written; a false one is a default and left out."""

_INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_CONTEXT: Final = 0x80
_CONSTRUCTED: Final = 0x20


def item(tag: int, *content: bytes) -> bytes:
    """Return an item of this tag; its content is given in pieces."""
    joined = content[0] if len(content) == 1 else b"".join(content)
    size = len(joined)
    if size < 0x80:
        return bytes((tag, size)) + joined
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + joined


def context(number: int, content: bytes, *, constructed: bool) -> bytes:
    """Return an item whose meaning depends on where it stands: [0] to [30]."""
    return item(_CONTEXT | constructed * _CONSTRUCTED | number, content)


def integer(number: int) -> bytes:
    """Return a number that is not negative."""
    # With one bit more than it has: the first one is the sign.
    return item(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def bits(content: bytes) -> bytes:
    """Return whole bytes as a string of bits: none of the last byte's is unused."""
    return item(BIT_STRING, b"\0", content)


# Of a fleet that re-keys at once hundreds begin and end in one second.
@lru_cache(maxsize=64)
def time(date: datetime) -> bytes:
    """Return a date in UTC, in whole seconds, as RFC 5280 has it (4.1.2.5)."""
    moment = f"{date.month:02}{date.day:02}{date.hour:02}{date.minute:02}{date.second:02}Z"
    if 1950 <= date.year < 2050:
        return item(_UTC_TIME, f"{date.year % 100:02}{moment}".encode())
    return item(_GENERALIZED_TIME, f"{date.year:04}{moment}".encode())
