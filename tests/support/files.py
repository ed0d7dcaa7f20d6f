"""A disk in a dictionary, whose writes can fail in each way that a disk's can.

    files = MemoryFiles()
    files.fail(2, Failure.AFTER)      # the second durable change from now on
    files.fail(1, Failure.TORN, crash=True)

A test of crash safety counts the changes of the undisturbed run (`files.changes`) and repeats it
with each change failing in each way, then opens what is left and checks everything.
"""

from enum import Enum
from pathlib import Path

from agents.runtime.errors import MissingError, StateError, UnwritableError
from agents.runtime.files import MAX_FILE

__all__ = ["Crash", "Failure", "MemoryFiles"]


class Crash(BaseException):
    """The power fails here. Nothing of the program under test may catch it."""


class Failure(Enum):
    """What is on the disk when a change fails."""

    BEFORE = "the old content"
    MIDDLE = "the old content, and a temporary file"
    TORN = "half of the new content: the disk lied"
    AFTER = "the new content, though the writer is told that it failed"


class MemoryFiles:
    """Implements `agents.runtime.files.Files`."""

    def __init__(self) -> None:
        self.content: dict[Path, bytes] = {}
        self.modes: dict[Path, int] = {}
        self.full = False
        """Whether every durable change fails, as on a disk without space."""
        self.changes = 0
        """Durable changes asked for so far: writes and removals."""
        self._failures: dict[int, tuple[Failure, bool]] = {}

    def fail(self, change: int, failure: Failure, *, crash: bool = False) -> None:
        """Let the `change`-th durable change from now on (1 is the next) fail.

        It raises `UnwritableError`, or `Crash` if `crash`.
        """
        self._failures[self.changes + change] = failure, crash

    def read_file(self, path: Path, max_bytes: int = MAX_FILE) -> bytes:
        """See `Files.read_file`."""
        if path not in self.content:
            raise MissingError(f"{path} does not exist")
        data = self.content[path]
        if len(data) > max_bytes:
            raise StateError(f"{path} exceeds the limit of {max_bytes} bytes")
        return data

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_atomic`."""
        self._change(path, data, mode)

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_new`."""
        if path in self.content:
            raise StateError(f"{path} exists already")
        self._change(path, data, mode)

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        return path in self.content

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        self._change(path, None, 0)

    def _change(self, path: Path, data: bytes | None, mode: int) -> None:
        self.changes += 1
        if self.full:
            raise UnwritableError(
                f"cannot write {path}: no space left on device", "free some space"
            )
        failure, crash = self._failures.pop(self.changes, (None, False))
        match failure:
            case None | Failure.AFTER:
                self._put(path, data, mode)
            case Failure.MIDDLE if data is not None:
                self._put(path.with_name(f".{path.name}.new"), data[: len(data) // 2], mode)
            case Failure.TORN if data is not None:
                self._put(path, data[: len(data) // 2], mode)
            case _:
                pass
        if failure is not None:
            raise Crash if crash else UnwritableError(f"cannot write {path}: {failure.value}")

    def _put(self, path: Path, data: bytes | None, mode: int) -> None:
        if data is None:
            self.content.pop(path, None)
            self.modes.pop(path, None)
        else:
            self.content[path], self.modes[path] = bytes(data), mode
