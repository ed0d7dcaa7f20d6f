"""Errors of this floor, cut by what the caller does next.

    PKIError
      MalformedError       not of the format: drop it
      UntrustedError       well-formed, and not to be trusted: refuse the sender
        SignatureError       the bytes are not what that key signed
        UnknownKeyError      a key that leads to no root of ours
        ExpiredError         over; where it is a leaf's, its holder enrols again
        NotYetValidError     not begun: one of the two clocks is wrong
        RevokedError         taken back, or denied by a head
        RoleError            another component than the link expects
      ForkError            two truths under one key: keep both, alarm
      RefusedError         policy says no: tell the asker
      SealError            a sealed file does not open
        WrongKeyError        with this key file or password
        DamagedError         with none: restore a backup

They hold bytes, numbers, texts and dates, never an object of this package, so that every module
can import them. `ForkError` is no `UntrustedError`: nothing may catch it in passing.
"""

from collections.abc import Collection
from datetime import datetime

__all__ = [
    "DamagedError",
    "ExpiredError",
    "ForkError",
    "MalformedError",
    "NotYetValidError",
    "PKIError",
    "RefusedError",
    "RevokedError",
    "RoleError",
    "SealError",
    "SignatureError",
    "UnknownKeyError",
    "UntrustedError",
    "WrongKeyError",
]


class PKIError(Exception):
    """Whatever this floor says no to."""


class MalformedError(PKIError):
    """Bytes that are not of the format."""


class UntrustedError(PKIError):
    """Well-formed, and not to be trusted."""


class SignatureError(UntrustedError):
    """A signature that is not good for these bytes and this key."""


class UnknownKeyError(UntrustedError):
    """A key that is none of those that may be used here."""

    def __init__(self, key_id: bytes, what: str = "key") -> None:
        self.key_id = key_id
        super().__init__(f"unknown {what} {key_id.hex()}")


class _ValidityError(UntrustedError):
    def __init__(self, key_id: bytes, limit: datetime, now: datetime, verb: str) -> None:
        self.key_id = key_id
        self.limit = limit
        self.now = now
        super().__init__(
            f"certificate of key {key_id.hex()} {verb} {limit.isoformat()}, "
            f"our clock says {now.isoformat(timespec='seconds')}"
        )


class ExpiredError(_ValidityError):
    """The end of a certificate has passed by our clock.

    `limit` is the date in the certificate, `now` our own clock: the two that an operator
    compares (E7).
    """

    def __init__(self, key_id: bytes, limit: datetime, now: datetime) -> None:
        super().__init__(key_id, limit, now, "expired at")


class NotYetValidError(_ValidityError):
    """A certificate begins in the future of our clock; fields as in `ExpiredError`."""

    def __init__(self, key_id: bytes, limit: datetime, now: datetime) -> None:
        super().__init__(key_id, limit, now, "begins at")


class RevokedError(UntrustedError):
    """A key that was revoked with its root, or is denied by a head."""

    def __init__(self, key_id: bytes) -> None:
        self.key_id = key_id
        super().__init__(f"key {key_id.hex()} is revoked")


class RoleError(UntrustedError):
    """A genuine certificate of somebody else than the link expects (A12)."""

    def __init__(self, expected: str | Collection[str], got: str) -> None:
        self.expected = expected if isinstance(expected, str) else " or ".join(sorted(expected))
        self.got = got
        super().__init__(f"expected {self.expected}, got {got}")


class ForkError(PKIError):
    """The holder of one key has signed two statements that exclude each other.

    Both are kept as bytes: they are the evidence.
    """

    def __init__(self, ours: bytes, theirs: bytes) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(f"fork: statements of {len(ours)} and {len(theirs)} bytes")


class RefusedError(PKIError):
    """Policy says no to a request that is well-formed and genuine."""


class SealError(PKIError):
    """A sealed file does not open."""


class WrongKeyError(SealError):
    """The file is whole, and none of its slots opens with this key file or password."""


class DamagedError(SealError):
    """The file is not what was written; no key opens it."""
