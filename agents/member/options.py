"""Options that every component but the server has in its configuration."""

import re
from collections.abc import Sized
from pathlib import Path
from typing import Any

from agents.runtime.config import option

__all__ = [
    "BUNDLE_NAME",
    "bundle_option",
    "fingerprint_option",
    "log_level_option",
    "log_option",
    "not_empty",
    "state_option",
]

BUNDLE_NAME = "anchorline-init.dat"


def state_option(role: str) -> Any:  # noqa: ANN401 - it has the type of the field
    """Where the component keeps its state."""
    return option(Path(f"/var/lib/anchorline/{role}"), "State directory.")


def bundle_option() -> Any:  # noqa: ANN401
    """The init bundle of the deployment."""
    return option(
        Path(f"/etc/anchorline/{BUNDLE_NAME}"),
        "Init bundle, from `anchorline bundle export FILE` on the server.",
    )


def fingerprint_option() -> Any:  # noqa: ANN401
    """Which deployment the bundle has to be of."""
    return option(
        None,
        "Deployment fingerprint that the bundle must have, refused otherwise; empty: any.",
        check=_is_a_fingerprint,
    )


def _is_a_fingerprint(text: str) -> str | None:
    form = re.fullmatch("[0-9a-fA-F]{64}", text.strip())
    return None if form else "expected 64 hexadecimal digits, as `bundle export` prints them"


def log_option(role: str) -> Any:  # noqa: ANN401
    """Where log lines go."""
    return option(
        None, "Log file; empty: standard error.", example=f"/var/log/anchorline/{role}.log"
    )


def log_level_option() -> Any:  # noqa: ANN401
    """How much is logged."""
    return option(None, "How much is logged; empty: what the bundle says, otherwise info.")


def not_empty(value: Sized) -> str | None:
    """A check for lists that mean nothing when they are empty."""
    return None if value else "expected at least one"
