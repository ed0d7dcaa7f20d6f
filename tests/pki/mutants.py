"""Rules taken away one at a time, to show that a test's attack fails by that rule alone."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from pki import steps, succession, trust
from pki.entries import Kind
from pki.succession import Succession

__all__ = ["without_check", "without_head_check", "without_signer", "without_succession"]


def _without(checks: tuple[Callable[..., Any], ...], name: str) -> tuple[Callable[..., Any], ...]:
    left = tuple(check for check in checks if check.__name__ != name)
    assert len(left) == len(checks) - 1, f"no check is named {name}"
    return left


def without_check(patch: pytest.MonkeyPatch, kind: Kind, name: str) -> None:
    """Take a check of `steps.CHECKS` away."""
    table = cast("dict[Kind, object]", steps.CHECKS)
    patch.setitem(table, kind, _without(steps.CHECKS[kind], name))


def without_signer(patch: pytest.MonkeyPatch, kind: Kind, name: str) -> None:
    """Let a kind do without one of its signatures."""
    table = cast("dict[Kind, object]", steps.SIGNERS)
    patch.setitem(table, kind, _without(steps.SIGNERS[kind], name))


def without_head_check(patch: pytest.MonkeyPatch, name: str) -> None:
    """Take a check of `trust.HEAD_CHECKS` away."""
    patch.setattr(trust, "HEAD_CHECKS", _without(trust.HEAD_CHECKS, name))


def without_succession(patch: pytest.MonkeyPatch, rule: Succession) -> None:
    """Let one of the two reasons to replace a chain be none."""
    patch.delitem(succession.RULES, rule)
