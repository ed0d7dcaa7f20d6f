"""Files that are there whole or not at all.

A write is: a temporary file in the same folder, its bytes, fsync, rename over the old name,
fsync of the folder. A crash before the rename leaves the old file and perhaps a temporary one
(its name begins with a dot, nobody reads it, and the next write replaces it); a crash after it
leaves the new file. Only a disk that lies can tear it, and for what must survive that as well
there is `TwoGenerations`: two such files written in turns, each with its checksum.

Secrets are why everything is 0600 from the moment it exists: a mode set later is too late.
"""

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from agents.runtime.errors import (
    DamagedError,
    MissingError,
    StateError,
    UnwritableError,
    reason_of,
)

__all__ = [
    "DISK",
    "MAX_FILE",
    "DiskFiles",
    "Files",
    "TwoGenerations",
    "failure",
    "read_file",
    "write_atomic",
    "write_new",
]

MAX_FILE = 64 * 1024 * 1024
"""Bytes read of one state file, unless the caller knows better. A file is read into memory."""


class Files(Protocol):
    """The port to the disk: whole files, durable when the call returns."""

    def read_file(self, path: Path, max_bytes: int = MAX_FILE) -> bytes:
        """Return the content.

        Raises:
            MissingError: There is no such file.
            StateError: It is larger than `max_bytes`, or cannot be read.
        """
        ...

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Replace the content: after a crash it is the old or the new one.

        Raises:
            UnwritableError: It could not be made durable; the file has the old content, or (only if
                the last fsync failed) the new one.
        """
        ...

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Write a file that does not exist yet, whole or not at all.

        Raises:
            StateError: Something has that name already.
            UnwritableError: It could not be made durable.
        """
        ...

    def exists(self, path: Path) -> bool:
        """Whether something has that name."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the file, durably. Idempotent.

        Raises:
            UnwritableError: It could not be removed.
        """
        ...


class DiskFiles:
    """`Files` on the real disk."""

    def read_file(self, path: Path, max_bytes: int = MAX_FILE) -> bytes:
        """See `Files.read_file`."""
        try:
            with path.open("rb") as file:
                data = _read_at_most(file, max_bytes + 1)
        except FileNotFoundError as exc:
            raise MissingError(f"{path} does not exist") from exc
        except OSError as exc:
            raise failure("read", path, exc) from exc
        if len(data) > max_bytes:
            raise StateError(f"{path} exceeds the limit of {max_bytes} bytes")
        return data

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_atomic`."""
        temporary = _temporary(path)
        try:
            _write_temporary(temporary, data, mode)
            # A crash here: the old file, and a temporary one that the next write replaces.
            os.replace(temporary, path)
            # A crash here: either name may be on disk, both files are whole.
            _sync_folder(path.parent)
        except OSError as exc:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _unwritable("write", path, exc) from exc

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_new`."""
        temporary = _temporary(path)
        try:
            _write_temporary(temporary, data, mode)
            try:
                # Unlike a rename, a link refuses to replace.
                os.link(temporary, path)
            finally:
                temporary.unlink()
            _sync_folder(path.parent)
        except FileExistsError as exc:
            raise StateError(
                f"{path} exists already", hint="choose another name, or move it away"
            ) from exc
        except OSError as exc:
            raise _unwritable("write", path, exc) from exc

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        return os.path.lexists(path)

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        try:
            path.unlink(missing_ok=True)
            if path.parent.exists():
                _sync_folder(path.parent)
        except OSError as exc:
            raise _unwritable("remove", path, exc) from exc


def _read_at_most(file: BinaryIO, most: int) -> bytes:
    # Piece by piece: one read of `most` would reserve that much, whatever the file has.
    found = bytearray()
    while len(found) < most and (piece := file.read(min(most - len(found), 1 << 20))):
        found += piece
    return bytes(found)


DISK = DiskFiles()
read_file = DISK.read_file
write_atomic = DISK.write_atomic
write_new = DISK.write_new


def failure(verb: str, path: Path, exc: OSError) -> StateError:
    """What the disk says, with what to do about it."""
    return StateError(
        f"cannot {verb} {path}: {reason_of(exc)}", hint=_HINTS.get(exc.errno or 0, "")
    )


def _unwritable(verb: str, path: Path, exc: OSError) -> UnwritableError:
    failed = failure(verb, path, exc)
    return UnwritableError(failed.text, failed.hint)


_HINTS = {
    errno.EIO: "look after this disk: it loses what it is given",
    errno.ENOSPC: "free some space on this file system",
    errno.EDQUOT: "raise the disk quota of the service's user",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "let the user that runs this read and write it: see its owner and mode",
    errno.EPERM: "let the user that runs this read and write it: see its owner and mode",
    errno.ENOENT: "create the folder first",
}


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write_temporary(path: Path, data: bytes, mode: int) -> None:
    # What a crash left behind may have another mode or be a link: never write through it.
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(handle, mode)  # the umask may have taken bits away
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_MAGIC = b"anchorline-2gen\x01"
_HEADER = len(_MAGIC) + 8 + 8 + 32


class TwoGenerations:
    """One content kept in two files, `<name>.0` and `<name>.1`, written in turns.

    The bytes of each: magic (16), generation (8, big-endian), length (8), SHA-256 of all
    other bytes (32), content. A generation that does not check is passed over for the one
    before it; what a caller does with content that may be one write old is its own decision
    (`torn` says so). Not safe for two writers: the state directory is locked by its daemon.

    Args:
        path: The common name, for example `ledger`.
        files: The disk.
        max_bytes: Limit of the content in bytes.
    """

    def __init__(self, path: Path, files: Files = DISK, max_bytes: int = MAX_FILE) -> None:
        self._slots = (path.with_name(f"{path.name}.0"), path.with_name(f"{path.name}.1"))
        self._path = path
        self._files = files
        self._max_bytes = max_bytes
        self._generation: int | None = None
        self.torn: tuple[Path, ...] = ()
        """The files that the last `read` found damaged, and passed over."""

    @property
    def exists(self) -> bool:
        """Whether anything was ever written here, damaged or not."""
        return any(self._files.exists(slot) for slot in self._slots)

    def read(self) -> tuple[bytes, int]:
        """Return the newest whole content and its generation (from 1).

        Raises:
            MissingError: Nothing was ever written.
            DamagedError: Something was, and neither file checks.
            StateError: A file cannot be read or is too large.
        """
        found: list[tuple[int, bytes]] = []
        torn: list[Path] = []
        for slot in self._slots:
            try:
                data = self._files.read_file(slot, self._max_bytes + _HEADER)
            except MissingError:
                continue
            opened = _open_generation(data)
            if opened is None:
                torn.append(slot)
            else:
                found.append(opened)
        self.torn = tuple(torn)
        if found:
            generation, content = max(found)
            self._generation = generation
            return content, generation
        if torn:
            names = " and ".join(str(path) for path in torn)
            raise DamagedError(
                f"{names}: checksum does not match in any generation",
                hint="restore the state directory from a backup; nothing was overwritten",
            )
        raise MissingError(f"{self._path} was never written")

    def write(self, data: bytes) -> int:
        """Make `data` the newest content and return its generation; the one before it stays.

        Raises:
            ValueError: `data` is larger than the limit.
            UnwritableError: It could not be written; the content is the old or the new one.
            DamagedError: What is there cannot be read, so nothing may be replaced.
        """
        if len(data) > self._max_bytes:
            raise ValueError(f"content of {len(data)} bytes exceeds {self._max_bytes} bytes")
        if self._generation is None:
            try:
                self.read()
            except MissingError:
                self._generation = 0
        generation = (self._generation or 0) + 1
        # A generation lives in the slot of its parity, so the newest whole one is never the
        # one replaced: a torn write costs this content and no other.
        slot = self._slots[generation % 2]
        self._files.write_atomic(slot, _seal_generation(generation, data))
        self._generation = generation
        return generation


def _seal_generation(generation: int, content: bytes) -> bytes:
    head = _MAGIC + generation.to_bytes(8, "big") + len(content).to_bytes(8, "big")
    return head + hashlib.sha256(head + content).digest() + content


def _open_generation(data: bytes) -> tuple[int, bytes] | None:
    head, digest, content = data[: _HEADER - 32], data[_HEADER - 32 : _HEADER], data[_HEADER:]
    if hashlib.sha256(head + content).digest() != digest or not head.startswith(_MAGIC):
        return None
    return int.from_bytes(head[16:24], "big"), content
