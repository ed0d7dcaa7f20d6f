"""The disks of simulated machines, and how they fail.

A `Platter` outlives programs. A `Disk` is a program's view of it: when the program is killed, by
a write or otherwise, nothing that it still does reaches the platter.

A *strike* fails one write. Where the disk lies (`Failure.TORN`) only what is kept in two
generations must survive it, so the ledger may be torn; any other file then keeps its old content.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import MAX_FILE, TwoGenerations
from tests.support.files import Crash, Failure, MemoryFiles

__all__ = ["Disk", "Failure", "Killed", "Platter", "Strike"]

LEDGER: Final = "ledger"


class Killed(BaseException):
    """The program is no more; nothing of it may catch this."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What becomes of one of the next writes."""

    failure: Failure
    kill: bool
    """Whether the program is killed there; else it is told of an error."""

    def __str__(self) -> str:
        return f"{'killed' if self.kill else 'failed'}: on the disk is {self.failure.value}"


class Platter(MemoryFiles):
    """What is on the disk of one machine.

    Args:
        told: is called with the path after each change.
    """

    def __init__(self, told: Callable[[Path], None]) -> None:
        super().__init__()
        self.struck = ""
        """What the last strike did."""
        self._told = told
        self._strikes: dict[int, Strike] = {}

    def strike(self, change: int, strike: Strike) -> None:
        """Let the `change`-th change from now on (1 is the next) fail so."""
        self._strikes[self.changes + change] = strike

    def spare(self) -> None:
        """Let nothing fail any more."""
        self._strikes.clear()

    def ledger(self, folder: Path) -> bytes | None:
        """The newest whole generation of the ledger there."""
        try:
            return TwoGenerations(folder / LEDGER, self).read()[0]
        except (MissingError, StateError):
            return None

    def _change(self, path: Path, data: bytes | None, mode: int) -> None:
        strike = self._strikes.pop(self.changes + 1, None)
        if strike is not None:
            failure = strike.failure
            if failure is Failure.TORN and not path.name.startswith(LEDGER):
                failure = Failure.MIDDLE
            self.struck = f"{path.name}: {failure.value}"
            self.fail(1, failure, crash=strike.kill)
        try:
            super()._change(path, data, mode)
        finally:
            self._told(path)


class Disk:
    """A program's view of a platter; `agents.runtime.files.Files`.

    Args:
        alive: whether the program still is.
        kill: ends it, at a write.
    """

    def __init__(
        self, platter: Platter, *, alive: Callable[[], bool], kill: Callable[[str], None]
    ) -> None:
        self._platter = platter
        self._alive = alive
        self._kill = kill

    def read_file(self, path: Path, max_bytes: int = MAX_FILE) -> bytes:
        """See `Files.read_file`."""
        self._check()
        return self._platter.read_file(path, max_bytes)

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        self._check()
        return self._platter.exists(path)

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_atomic`."""
        self._do(lambda: self._platter.write_atomic(path, data, mode))

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_new`."""
        self._do(lambda: self._platter.write_new(path, data, mode))

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        self._do(lambda: self._platter.remove(path))

    def _check(self) -> None:
        if not self._alive():
            raise Killed

    def _do(self, change: Callable[[], None]) -> None:
        self._check()
        try:
            change()
        except Crash as exc:
            self._kill(f"at a write of {self._platter.struck}")
            raise Killed from exc
