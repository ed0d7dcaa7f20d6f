"""A file that grows at its end, as a journal writes it: the port, and the real disk behind it.

`Files` is for whole files; this is for one that is written piece by piece. What was written is
on the disk once `sync` has returned, and not before: a crash may leave any part of it.

Every call blocks, and fails with an `OSError`: who knows what the file is says what that means.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["DiskTape", "Tape", "Tapes"]


class Tape(Protocol):
    """One open file."""

    def write(self, data: bytes, place: int) -> None:
        """Write all of `data` at an offset; if that fails, a part of it may be there."""
        ...

    def cut(self, place: int) -> None:
        """Remove everything from an offset on."""
        ...

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        ...

    def is_named(self) -> bool:
        """Whether it still has the name under which it was opened."""
        ...

    def close(self) -> None:
        """Give it back; what is not synced may be lost."""
        ...


Tapes = Callable[[Path], Tape]
"""Opens the file of a name, which is there. Raises `OSError`."""


class DiskTape:
    """`Tape` on the real disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, data: bytes, place: int) -> None:
        """See `Tape.write`."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._handle, rest, place)
            rest, place = rest[written:], place + written

    def cut(self, place: int) -> None:
        """See `Tape.cut`."""
        os.ftruncate(self._handle, place)

    def sync(self) -> None:
        """See `Tape.sync`."""
        os.fdatasync(self._handle)

    def is_named(self) -> bool:
        """See `Tape.is_named`."""
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        except OSError:
            return False

    def close(self) -> None:
        """See `Tape.close`."""
        os.close(self._handle)
