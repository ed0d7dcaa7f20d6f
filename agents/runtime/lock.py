"""A state directory has one owner: the daemon that runs on it, and no other.

The lock is `flock` on `<folder>/lock`, so it ends with the process however that ends; the file
names the process and its role for people.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from agents.runtime.errors import StateError
from agents.runtime.files import failure
from agents.runtime.statefiles import LOCK

__all__ = ["StateLock", "lock_state"]


class StateLock:
    """The right to use one state directory, held until `release` or the end of the process."""

    def __init__(self, folder: Path, handle: int) -> None:
        self.folder = folder
        self._handle: int | None = handle

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lock_state(folder: Path, role: str) -> StateLock:
    """Take a state directory for this process, and make it (0700) where it is missing.

    In this order: it is a directory; it is ours; nobody else may enter it; no other daemon
    holds it; it was not made for another role.

    Args:
        folder: The state directory. Missing parents are made as well.
        role: The role that uses it, for example "zone-server".

    Raises:
        StateError: One of these does not hold. Nothing was changed.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise failure("use state directory", folder, exc) from exc
    try:
        _check_owner(folder, os.fstat(handle))
        return StateLock(folder, _lock(folder, handle, role))
    finally:
        os.close(handle)


def _check_owner(folder: Path, found: os.stat_result) -> None:
    own = os.geteuid()
    if found.st_uid != own:
        raise StateError(
            f"state directory {folder} belongs to uid {found.st_uid}, this process runs as {own}",
            hint=f"start it as uid {found.st_uid}, or name another state directory",
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise StateError(
            f"state directory {folder} has mode {mode:04o}: others may enter it",
            hint=f"chmod 700 {folder}",
        )


def _lock(folder: Path, folder_handle: int, role: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(LOCK, flags, 0o600, dir_fd=folder_handle)
    except OSError as exc:
        raise failure("open", folder / LOCK, exc) from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        pid, _ = _holder(handle)
        os.close(handle)
        if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise failure("lock", folder / LOCK, exc) from exc
        raise StateError(
            f"state directory {folder} is in use by process {pid or 'of unknown number'}",
            hint=f"stop it first (kill {pid}), or name another state directory" if pid else "",
        ) from exc
    _, before = _holder(handle)
    if before and before != role:
        os.close(handle)
        raise StateError(
            f"state directory {folder} is that of a {before}, not of a {role}",
            hint="each role has a state directory of its own",
        )
    line = f"{os.getpid()} {role}\n".encode()
    try:
        # Over what is there: for that a full disk has room. A crash between the two leaves a
        # longer file, of which nothing is read: the lock itself is not in its bytes.
        os.pwrite(handle, line, 0)
        os.ftruncate(handle, len(line))
    except OSError as exc:
        os.close(handle)
        raise failure("write", folder / LOCK, exc) from exc
    return handle


def _holder(handle: int) -> tuple[str, str]:
    """The pid and role in the lock file; empty text where there is none."""
    line = os.pread(handle, 100, 0).decode("ascii", "replace")
    words = line.split()
    # A line without its end was cut off: half a role is none.
    if line.endswith("\n") and len(words) == 2 and words[0].isdigit():
        return words[0], words[1]
    return "", ""
