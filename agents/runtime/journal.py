"""An append-only log of records: what `append` returned for is there after any crash.

The file is a header and then one *batch* after the other:

    header   magic (16) | salt (16)
    batch    marker (4) | length of the body (4) | digest (16) | body
    body     length (4) | record | length (4) | record | ...           all lengths big-endian

A batch is what was waiting when the disk was ready: one write and one fsync for all of it, in a
thread, so that a slow disk does not stop the loop. A batch is written only after the one before
it was synced. Therefore, when the file is opened:

1. A batch that does not check and has none that checks behind it is the last one, cut off by a
   crash: nobody was told that it is there. It is removed.
2. A batch that does not check and has a whole one behind it was whole once: that is damage. It
   is named, with its offset, and nothing is changed.

The digest is BLAKE2b over offset, length and body, keyed with the salt. The salt is drawn for
each file, so that no peer can have a record stored that looks like a batch of this file; the
offset, so that no batch counts anywhere else.

Compaction replaces the file by one that says the same in fewer records, while others append. The
state that these are made of has to be that of the file, neither more nor less: `append` calls
its `kept` as soon as the record is on the disk and before anything else is written, and
`compact` asks for the records when nothing is being written.

Failure: a write that fails (a full disk) is taken back and its callers are told; the journal
goes on. After an fsync that fails nobody knows what is on the disk: every later `append` fails
until the journal is opened again, and a record whose `append` failed may then be there. `failed`
says so to whoever can have it opened again.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from agents.runtime.errors import DamagedError, StateError
from agents.runtime.files import DISK, Files, failure
from agents.runtime.tape import DiskTape, Tape, Tapes

__all__ = ["MAX_BATCH", "MAX_JOURNAL", "MAX_RECORD", "Journal"]

MAX_RECORD = 1024 * 1024
"""Bytes of one record."""

MAX_BATCH = 4 * 1024 * 1024
"""Bytes of one batch's body: at least one record of any size fits."""

MAX_JOURNAL = 512 * 1024 * 1024
"""Bytes of a file: it is read into memory, so what would not be opened again is not written."""

_MAGIC = b"anchorline-log\x00\x01"
_START = len(_MAGIC) + 16
_MARKER = b"\xa7JB\x01"
_HEAD = len(_MARKER) + 4 + 16


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record that is not on the disk yet."""

    record: bytes
    kept: Callable[[], None] | None
    done: asyncio.Future[None]


class Journal:
    """One open journal. For one event loop; the state directory's lock keeps others away."""

    def __init__(
        self, path: Path, files: Files, tapes: Tapes, tape: Tape, salt: bytes, end: int
    ) -> None:
        self._path = path
        self._files = files
        self._tapes = tapes
        self._tape = tape
        self._salt = salt
        self._end = end  # the file is synced up to here
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._disk = asyncio.Lock()
        self._failed: StateError | None = None
        self._useless = asyncio.Event()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    @classmethod
    def open(
        cls, path: Path, files: Files = DISK, tapes: Tapes = DiskTape
    ) -> tuple[Self, list[bytes]]:
        """Open a journal, or make an empty one, and return it with its records, oldest first.

        Args:
            path: The file.
            files: The disk, for the writes of whole files.
            tapes: The same disk, for what is appended.

        Raises:
            DamagedError: It is not a journal, or is damaged before its end.
            StateError: It cannot be read, or is too large.
        """
        if not files.exists(path):
            # Written whole: a file without its whole header was never ours.
            files.write_atomic(path, _MAGIC + secrets.token_bytes(16))
        data = files.read_file(path, MAX_JOURNAL)
        if len(data) < _START or not data.startswith(_MAGIC):
            raise DamagedError(f"{path} is not a journal", hint=_RESTORE)
        salt = data[len(_MAGIC) : _START]
        records, end = _read(path, data, salt)
        tape = _opened(tapes, path)
        try:
            if end < len(data):
                tape.cut(end)
                tape.sync()
                # A crash before this line cuts the same tail again.
        except OSError as exc:
            tape.close()
            raise failure("cut the tail of", path, exc) from exc
        return cls(path, files, tapes, tape, salt, end), records

    @property
    def size(self) -> int:
        """Bytes of the file that are synced."""
        return self._end

    async def append(self, record: bytes, kept: Callable[[], None] | None = None) -> None:
        """Add a record, and return when it is on the disk.

        Records are in the order of the calls. If the caller is cancelled the record may be
        there or not.

        Args:
            record: What is added.
            kept: Called once it is there, whether or not the caller still waits. It takes the
                record into the state that a compaction is made of, and must not raise.

        Raises:
            ValueError: It is larger than `MAX_RECORD`.
            StateError: It is not there; see the module about what may be later.
            RuntimeError: The journal is closed.
        """
        if len(record) > MAX_RECORD:
            raise ValueError(f"record of {len(record)} bytes exceeds {MAX_RECORD} bytes")
        self._usable()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(bytes(record), kept, done))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())
        await done

    async def compact(self, records: Callable[[], Iterable[bytes]]) -> None:
        """Replace the content: afterwards, and after any crash, the file has these or the old.

        It takes its turn between two batches; an `append` made meanwhile comes after.

        Args:
            records: Called when nothing is being written: what it gives stands for every
                record whose `kept` was called by then. What it gives is read in another
                thread, while `kept` of no further record is called.

        Raises:
            RuntimeError: It is closed.
            StateError: It could not be written; the old content stays.
        """
        self._usable()
        async with self._disk:
            self._usable()  # it may have been closed while others wrote
            loop = asyncio.get_running_loop()
            try:
                await _finish(loop.run_in_executor(self._thread, self._replace, records()))
            finally:
                self._look()

    async def failed(self) -> NoReturn:
        """Wait until nothing can be appended any more, whatever the disk does from then on.

        Raises:
            StateError: It is so.
        """
        await self._useless.wait()
        assert self._failed is not None
        raise StateError(self._failed.text, self._failed.hint)

    async def close(self) -> None:
        """Write what waits, and close the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        async with self._disk:
            self._thread.shutdown()
            self._tape.close()

    def _usable(self) -> None:
        if self._closed:
            raise RuntimeError("the journal is closed")
        if self._failed is not None:
            raise StateError(self._failed.text, self._failed.hint)

    def _look(self) -> None:
        if self._failed is not None:
            self._useless.set()

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                async with self._disk:  # taken for each batch: a compaction gets its turn
                    batch = self._take()
                    records = [one.record for one in batch]
                    work = loop.run_in_executor(self._thread, self._commit, records)
                    try:
                        await _finish(work)
                    except StateError as exc:
                        _tell(batch, exc)
                    else:
                        _tell(batch, None)
                    self._look()
        finally:
            self._flushing = None

    def _take(self) -> list[_Waiting]:
        """The records of the next batch: all that wait, up to the limit."""
        size = count = 0
        for one in self._waiting:
            size += 4 + len(one.record)
            if count and size > MAX_BATCH:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _commit(self, records: Sequence[bytes]) -> None:
        """In the thread: write one batch and sync it."""
        if self._failed is not None:
            raise self._failed
        data = _batch(records, self._salt, self._end)
        self._check_size(self._end + len(data))
        try:
            self._tape.write(data, self._end)
        except OSError as exc:
            # Nobody was told of it, and the next batch starts at the same place.
            error = failure("append to", self._path, exc)
            try:
                self._tape.cut(self._end)
            except OSError:
                self._failed = error
            raise error from exc
        try:
            # A crash before this returns: the batch is there, or is a tail that is cut.
            self._tape.sync()
        except OSError as exc:
            self._failed = failure("sync", self._path, exc)
            raise self._failed from exc
        self._end += len(data)

    def _check_size(self, size: int) -> None:
        if size > MAX_JOURNAL:
            raise StateError(f"{self._path} would exceed {MAX_JOURNAL} bytes", hint=_FULL)

    def _replace(self, records: Iterable[bytes]) -> None:
        """In the thread: write a new file, and take it into use."""
        salt = secrets.token_bytes(16)
        content = bytearray(_MAGIC + salt)
        for batch in _batches(list(records)):
            content += _batch(batch, salt, len(content))
        self._check_size(len(content))
        try:
            self._files.write_atomic(self._path, bytes(content))
        except StateError as exc:
            if not self._tape.is_named():
                # The last fsync failed: either file may be there after a crash, and what is
                # appended to the one that has lost its name would be lost with it.
                self._failed = exc
            raise
        # A crash here: the new file has the name, and is whole.
        try:
            tape = _opened(self._tapes, self._path)
        except StateError as exc:
            self._failed = exc  # the old file has no name any more
            raise
        self._tape.close()
        self._tape, self._salt, self._end = tape, salt, len(content)


_FULL = "see what fills it: for the records of a zone server, how many clients it has"
_RESTORE = "restore it from a backup, or move it away if its records are known elsewhere"


async def _finish(work: asyncio.Future[None]) -> None:
    """Wait for the thread even if cancelled meanwhile: it uses the file."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _tell(batch: Sequence[_Waiting], error: StateError | None) -> None:
    for one in batch:
        if error is None and one.kept is not None:
            one.kept()
        if one.done.done():  # its caller was cancelled
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(StateError(error.text, error.hint))


def _opened(tapes: Tapes, path: Path) -> Tape:
    try:
        return tapes(path)
    except OSError as exc:
        raise failure("open", path, exc) from exc


def _batches(records: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    start = size = 0
    for place, record in enumerate(records):
        if len(record) > MAX_RECORD:
            raise ValueError(f"record of {len(record)} bytes exceeds {MAX_RECORD} bytes")
        if size and size + 4 + len(record) > MAX_BATCH:
            yield records[start:place]
            start, size = place, 0
        size += 4 + len(record)
    if start < len(records):
        yield records[start:]


def _batch(records: Iterable[bytes], salt: bytes, offset: int) -> bytes:
    body = b"".join(len(record).to_bytes(4, "big") + record for record in records)
    length = len(body).to_bytes(4, "big")
    return _MARKER + length + _digest(salt, offset, body) + body


def _digest(salt: bytes, offset: int, body: bytes | memoryview) -> bytes:
    head = offset.to_bytes(8, "big") + len(body).to_bytes(8, "big")
    digest = hashlib.blake2b(head, key=salt, digest_size=16)
    digest.update(body)
    return digest.digest()


def _read(path: Path, data: bytes, salt: bytes) -> tuple[list[bytes], int]:
    """Return the records and where the last whole batch ends."""
    records: list[bytes] = []
    place = _START
    while place < len(data):
        body = _body(data, salt, place)
        if body is None:
            _refuse_damage(path, data, salt, place)
            break
        records += _records(body)
        place += _HEAD + len(body)
    return records, place


def _body(data: bytes, salt: bytes, place: int) -> memoryview | None:
    """The body of the batch that begins at `place`, if there is one and it checks."""
    if not data.startswith(_MARKER, place) or place + _HEAD > len(data):
        return None
    length = int.from_bytes(data[place + 4 : place + 8], "big")
    if place + _HEAD + length > len(data):
        return None
    body = memoryview(data)[place + _HEAD : place + _HEAD + length]
    return body if _digest(salt, place, body) == data[place + 8 : place + _HEAD] else None


def _refuse_damage(path: Path, data: bytes, salt: bytes, place: int) -> None:
    later = data.find(_MARKER, place + 1)
    while later >= 0:
        if _body(data, salt, later) is not None:
            raise DamagedError(
                f"{path} is damaged from byte {place} to byte {later}", hint=_RESTORE
            )
        later = data.find(_MARKER, later + 1)


def _records(body: memoryview) -> Iterable[bytes]:
    place = 0
    while place < len(body):
        start = place + 4
        place = start + int.from_bytes(body[place:start], "big")
        yield bytes(body[start:place])
