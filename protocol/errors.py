"""What can go wrong on a link, cut by whose fault it is.

    ProtocolError
      LocalProtocolError      we asked for the forbidden: our bug
        LinkClosedError       we spoke on a link that has ended
      RemoteProtocolError     the peer broke it; carries the code that closes the link
        FrameTooLargeError, UnknownFrameError, NotAllowedError, WrongVersionError
        TLSError              bytes that are no TLS, or a handshake that failed
          UntrustedChainError we do not trust the chain that the peer has shown
          AlertError          the peer ended the handshake, and said why
            DistrustedError   it does not trust our chain
      Refusal                 the injected `verify` does not want this peer

Errors hold ints, bytes and strings only. What a peer sent is quoted and cut.
"""

from typing import ClassVar

from protocol.codes import CloseCode

__all__ = [
    "AlertError",
    "DistrustedError",
    "FrameTooLargeError",
    "LinkClosedError",
    "LocalProtocolError",
    "NotAllowedError",
    "ProtocolError",
    "Refusal",
    "RemoteProtocolError",
    "TLSError",
    "UnknownFrameError",
    "UntrustedChainError",
    "WrongVersionError",
]


class ProtocolError(Exception):
    """Anything this package raises about a link."""


class LocalProtocolError(ProtocolError):
    """This side tried something that the protocol forbids."""


class LinkClosedError(LocalProtocolError):
    """This side spoke on a link that has ended."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids; `close_code` is what it gets."""

    close_code: ClassVar[CloseCode] = CloseCode.PROTOCOL_ERROR


class FrameTooLargeError(RemoteProtocolError):
    """A frame announced `size` bytes of body where `limit` are allowed."""

    close_code = CloseCode.FRAME_TOO_LARGE

    def __init__(self, frame: str, size: int, limit: int) -> None:
        super().__init__(f"{frame} of {size} bytes exceeds limit of {limit} bytes")
        self.frame = frame
        self.size = size
        self.limit = limit


class UnknownFrameError(RemoteProtocolError):
    """A frame of a type that this version does not have."""

    close_code = CloseCode.UNKNOWN_FRAME

    def __init__(self, number: int) -> None:
        super().__init__(f"unknown frame type 0x{number:02x}")
        self.number = number


class NotAllowedError(RemoteProtocolError):
    """A frame that its sender may not say on this link, or not yet."""

    close_code = CloseCode.NOT_ALLOWED

    def __init__(self, frame: str, where: str) -> None:
        super().__init__(f"{frame} is not allowed on {where}")
        self.frame = frame
        self.where = where


class WrongVersionError(RemoteProtocolError):
    """The peer speaks another version of the protocol."""

    close_code = CloseCode.WRONG_VERSION

    def __init__(self, got: int, expected: int) -> None:
        super().__init__(f"protocol version {got}, expected {expected}")
        self.got = got
        self.expected = expected


class TLSError(RemoteProtocolError):
    """What arrived is no TLS 1.2, or the handshake failed for what the peer did."""


class UntrustedChainError(TLSError):
    """The peer's certificate chain does not end at a root that we trust."""

    close_code = CloseCode.UNTRUSTED


class AlertError(TLSError):
    """The peer sent a fatal TLS alert."""


class DistrustedError(AlertError):
    """The peer sent a fatal TLS alert about our certificate chain."""

    close_code = CloseCode.UNTRUSTED


class Refusal(ProtocolError):  # noqa: N818 - an answer, not a fault
    """What an injected `verify` raises about a peer it does not want.

    Args:
        code: What the peer is told.
        text: The reason, for our log; the peer does not see it.
        time: Our policy time in Unix seconds, for `EXPIRED` and `CLOCK`; the peer sees it.
        retry_after: Seconds of network time, for `RETRY_AFTER`; the peer sees it.
    """

    def __init__(
        self,
        code: CloseCode,
        text: str,
        time: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.time = time
        self.retry_after = retry_after
