"""Errors: the tree that callers cut by, and texts that hold both sides."""

from datetime import UTC, datetime

import pytest

from pki import errors
from pki.errors import (
    ExpiredError,
    ForkError,
    MalformedError,
    NotYetValidError,
    PKIError,
    RefusedError,
    RevokedError,
    RoleError,
    SealError,
    SignatureError,
    UnknownKeyError,
    UntrustedError,
    WrongKeyError,
)

KEY = bytes(range(32))
LIMIT = datetime(2031, 1, 1, tzinfo=UTC)
NOW = datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_of_this_floor(name: str) -> None:
    assert issubclass(getattr(errors, name), PKIError)


@pytest.mark.parametrize("error", [ForkError, MalformedError, RefusedError, SealError])
def test_these_are_never_caught_as_untrusted(error: type[PKIError]) -> None:
    assert not issubclass(error, UntrustedError)


@pytest.mark.parametrize(
    "error",
    [
        SignatureError("x"),
        UnknownKeyError(KEY),
        ExpiredError(KEY, LIMIT, NOW),
        NotYetValidError(KEY, LIMIT, NOW),
        RevokedError(KEY),
        RoleError("server", "client"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_these_refuse_the_sender(error: PKIError) -> None:
    assert isinstance(error, UntrustedError)


@pytest.mark.parametrize("error", [ExpiredError, NotYetValidError])
def test_a_date_that_does_not_fit_names_both_clocks(
    error: type[ExpiredError | NotYetValidError],
) -> None:
    raised = error(KEY, LIMIT, NOW)
    assert "2031-01-01T00:00:00+00:00" in str(raised)
    assert "2031-01-02T03:04:05+00:00" in str(raised)
    assert (raised.key_id, raised.limit, raised.now) == (KEY, LIMIT, NOW)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RoleError("server", "client"), "expected server, got client"),
        (RoleError({"server", "hub"}, "client"), "expected hub or server, got client"),
        (UnknownKeyError(KEY, "root"), f"unknown root {KEY.hex()}"),
        (RevokedError(KEY), f"key {KEY.hex()} is revoked"),
        (ForkError(b"12", b"345"), "fork: statements of 2 and 3 bytes"),
        (WrongKeyError("no slot opens"), "no slot opens"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_is_built_from_the_values(error: PKIError, text: str) -> None:
    assert str(error) == text


def test_a_fork_keeps_both_statements() -> None:
    fork = ForkError(b"ours", b"theirs")
    assert (fork.ours, fork.theirs) == (b"ours", b"theirs")
