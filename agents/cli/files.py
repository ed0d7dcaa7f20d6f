"""A file that a command makes where it is told to.

That may be on a stick, which knows no links and no modes: it is written under its own name, and
not as `agents.runtime.files` writes what a daemon keeps.
"""

import os
from pathlib import Path

from agents.runtime.errors import AgentError, reason_of

__all__ = ["refuse_existing", "write_new"]


def refuse_existing(file: Path) -> None:
    """Return if nothing has that name.

    Raises:
        AgentError: Something has.
    """
    if os.path.lexists(file):
        raise AgentError(f"{file} exists", hint="remove it first, or name another file")


def write_new(file: Path, data: bytes, *, mode: int) -> None:
    """Make a file, never over an existing one; what cannot be written whole is not left there.

    Args:
        file: Which.
        data: Its bytes.
        mode: Its permission bits, less those of the umask.

    Raises:
        AgentError: The file exists, or cannot be written.
    """
    refuse_existing(file)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
        except OSError:
            file.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise AgentError(f"cannot write {file}: {reason_of(exc)}") from exc
