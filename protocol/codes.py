"""Why a link ended: the number that travels in a CLOSE frame.

A code says what the receiver may do next, and nothing about how the sender decided: the
peer learns the code, the log learns the reason. Numbers are for ever; a retired one is
never used again.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final

__all__ = ["EXPLANATIONS", "CloseCode"]


@unique
class CloseCode(IntEnum):
    """The code of a CLOSE frame, or of an ending that no frame announced."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = int.__hash__

    NORMAL = 0
    GOING_AWAY = 1
    SUPERSEDED = 2
    LOST = 3

    PROTOCOL_ERROR = 16
    FRAME_TOO_LARGE = 17
    UNKNOWN_FRAME = 18
    NOT_ALLOWED = 19
    WRONG_VERSION = 20
    HANDSHAKE_TIMEOUT = 21
    IDLE_TIMEOUT = 22

    UNTRUSTED = 32
    EXPIRED = 33
    CLOCK = 34
    REVOKED = 35
    WRONG_ROLE = 36
    TRUST_CHANGED = 37

    RETRY_AFTER = 48
    INTERNAL = 49


EXPLANATIONS: Final[Mapping[CloseCode, str]] = MappingProxyType(
    {
        CloseCode.NORMAL: "the exchange is finished",
        CloseCode.GOING_AWAY: "the sender stops or restarts",
        CloseCode.SUPERSEDED: "a newer link of the same peer took this one's place",
        CloseCode.LOST: "the connection ended without a CLOSE frame; never sent",
        CloseCode.PROTOCOL_ERROR: "bytes that are no TLS, no frame or no message",
        CloseCode.FRAME_TOO_LARGE: "a frame's header announced more than its type may have",
        CloseCode.UNKNOWN_FRAME: "a frame of a type that this version does not have",
        CloseCode.NOT_ALLOWED: "a message that this peer may not say on this link",
        CloseCode.WRONG_VERSION: "a protocol version that the sender does not speak",
        CloseCode.HANDSHAKE_TIMEOUT: "the link was not open in time",
        CloseCode.IDLE_TIMEOUT: "no frame arrived for too long",
        CloseCode.UNTRUSTED: "the certificate chain is not of a trusted root",
        CloseCode.EXPIRED: "a certificate of the chain has expired; `time` is the sender's clock",
        CloseCode.CLOCK: "a certificate is not valid yet; `time` is the sender's clock",
        CloseCode.REVOKED: "a key of the chain is revoked or denied",
        CloseCode.WRONG_ROLE: "the certificate is of another role or id than this link expects",
        CloseCode.TRUST_CHANGED: "the sender's trust changed: connect again",
        CloseCode.RETRY_AFTER: "overload: connect again after `retry_after` seconds",
        CloseCode.INTERNAL: "the sender failed; its log says how",
    }
)
"""For each code, what it says, in one line."""
