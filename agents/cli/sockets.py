"""Paths of the Unix sockets at which a daemon is asked."""

import os
from pathlib import Path

from agents.runtime.address import MAX_SOCKET_PATH
from agents.runtime.errors import AgentError, Exit

__all__ = ["SocketPathError", "check_path"]


class SocketPathError(AgentError):
    """No socket can have this path."""

    exit_code = Exit.USAGE


def check_path(path: Path, what: str, option: str) -> None:
    """Return if a socket can have this path.

    Args:
        path: The path, relative or not: its bytes count as they are given.
        what: Which socket it is, for people.
        option: What names another.

    Raises:
        SocketPathError: It is too long; the system has no number for that.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise SocketPathError(
            f"cannot connect to {what} {path}: its path has {size} bytes",
            hint=f"at most {MAX_SOCKET_PATH} are possible: name a shorter one with {option}",
        )
