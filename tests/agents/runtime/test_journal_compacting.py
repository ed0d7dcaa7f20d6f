"""Compacting a journal: a new file in the place of the old one, while records are appended."""

import asyncio
import errno
import os
import threading
from functools import partial
from pathlib import Path

import pytest

from agents.runtime.errors import StateError
from agents.runtime.files import DiskFiles
from agents.runtime.journal import MAX_RECORD, Journal
from agents.runtime.tape import DiskTape
from tests.agents.runtime.test_journal import reopened


async def test_compacting_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    for number in range(10):
        await journal.append(b"%d" % number)
    before = journal.size
    await journal.compact(lambda: [b"sum"])
    assert journal.size < before
    await journal.append(b"after")
    await journal.close()
    assert await reopened(path) == [b"sum", b"after"]


async def test_compacting_closes_the_old_file(tmp_path: Path) -> None:
    closed: list[DiskTape] = []

    class Watched(DiskTape):
        def close(self) -> None:
            closed.append(self)
            super().close()

    journal, _ = Journal.open(tmp_path / "issued", tapes=Watched)
    await journal.compact(lambda: [b"sum"])
    assert len(closed) == 1
    await journal.close()
    assert len(closed) == 2


class FullDisk(DiskFiles):
    full = False

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        if self.full:
            raise StateError(f"cannot write {path}: no space left on device")
        super().write_atomic(path, data, mode)


async def test_compacting_that_fails_leaves_the_old_content_in_use(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    disk = FullDisk()
    journal, _ = Journal.open(path, disk)
    await journal.append(b"old")
    disk.full = True
    with pytest.raises(StateError, match="no space left"):
        await journal.compact(lambda: [b"sum"])
    await journal.append(b"after")
    await journal.close()
    assert await reopened(path) == [b"old", b"after"]


async def test_a_cancelled_compacting_is_finished_before_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    await journal.append(b"old")
    compact = asyncio.create_task(journal.compact(lambda: [b"sum"]))
    await asyncio.sleep(0)
    compact.cancel()
    await journal.append(b"after")
    await journal.close()
    assert compact.cancelled()
    assert await reopened(path) == [b"sum", b"after"]


async def test_an_append_during_compacting_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    await journal.append(b"old")
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.compact(lambda: [b"sum"]))
        group.create_task(journal.append(b"after"))
    await journal.close()
    assert await reopened(path) == [b"sum", b"after"]


async def test_compacting_stands_for_all_that_was_appended_before_it(tmp_path: Path) -> None:
    """Appends go on all the time; the state that is compacted is what is on the disk by then."""
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    state: list[int] = []

    async def appends(first: int) -> None:
        for number in range(first, first + 50):
            await journal.append(b"%d" % number, partial(state.append, number))

    def compacted() -> list[bytes]:
        return [b" ".join(b"%d" % number for number in state)]

    async with asyncio.TaskGroup() as group:
        for first in range(0, 400, 50):
            group.create_task(appends(first))
        for _ in range(20):
            await journal.compact(compacted)
    await journal.close()
    records = await reopened(path)
    assert [int(number) for record in records for number in record.split()] == state
    assert sorted(state) == list(range(400))


async def test_compacting_gets_its_turn_among_many_appends(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "issued")
    large = [asyncio.create_task(journal.append(bytes(MAX_RECORD))) for _ in range(12)]
    await asyncio.sleep(0)  # the first batch of three is being written
    waiting: list[int] = []

    def compacted() -> list[bytes]:
        waiting.append(len(journal._waiting))
        return []

    await journal.compact(compacted)
    await asyncio.gather(*large)
    await journal.close()
    assert waiting[0] > 0


async def test_a_record_of_a_cancelled_append_is_kept_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    kept: list[bytes] = []
    append = asyncio.create_task(journal.append(b"x", lambda: kept.append(b"x")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    append.cancel()
    await journal.compact(lambda: list(kept))
    await journal.close()
    assert await reopened(path) == [b"x"]


class UnsyncedFolder(DiskFiles):
    unsynced = False

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        super().write_atomic(path, data, mode)
        if self.unsynced:
            raise StateError(f"cannot write {path}: input/output error")


async def test_nothing_is_acknowledged_when_nobody_knows_which_file_has_the_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "issued"
    disk = UnsyncedFolder()
    journal, _ = Journal.open(path, disk)
    await journal.append(b"old")
    disk.unsynced = True
    with pytest.raises(StateError, match="input/output"):
        await journal.compact(lambda: [b"sum"])
    with pytest.raises(StateError, match="input/output"):
        await journal.append(b"after")
    with pytest.raises(StateError, match="input/output"):
        await journal.failed()
    await journal.close()
    assert await reopened(path) == [b"sum"]


class HeldDisk(UnsyncedFolder):
    """Writes when it is told to."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        if self.unsynced:
            self.began.set()
            self.go_on.wait(10)
        super().write_atomic(path, data, mode)


async def test_a_cancelled_compacting_that_fails_ends_the_journal(tmp_path: Path) -> None:
    disk = HeldDisk()
    journal, _ = Journal.open(tmp_path / "issued", disk)
    disk.unsynced = True
    compacting = asyncio.create_task(journal.compact(lambda: [b"sum"]))
    assert await asyncio.to_thread(disk.began.wait, 10)
    compacting.cancel()
    await asyncio.sleep(0)
    disk.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await compacting
    with pytest.raises(StateError, match="input/output"):
        async with asyncio.timeout(10):
            await journal.failed()
    await journal.close()


async def test_a_new_file_that_cannot_be_opened_ends_the_journal(tmp_path: Path) -> None:
    # The old file has no name any more: what is appended to it would be lost.
    path = tmp_path / "issued"
    opened: list[DiskTape] = []

    def tapes(name: Path) -> DiskTape:
        if opened:
            raise OSError(errno.EMFILE, "Too many open files")
        opened.append(DiskTape(name))
        return opened[0]

    journal, _ = Journal.open(path, tapes=tapes)
    await journal.append(b"old")
    with pytest.raises(StateError, match="too many open files"):
        await journal.compact(lambda: [b"sum"])
    with pytest.raises(StateError, match="too many open files"):
        await journal.append(b"after")
    with pytest.raises(StateError, match="too many open files"):
        await journal.failed()
    await journal.close()
    assert await reopened(path) == [b"sum"]


async def test_compacting_that_waited_for_a_failing_sync_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = Journal.open(tmp_path / "issued")
    asked: list[bool] = []

    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def records() -> list[bytes]:
        asked.append(True)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        append = asyncio.create_task(journal.append(b"x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now it is being written
        with pytest.raises(StateError, match="cannot sync"):
            await journal.compact(records)
        with pytest.raises(StateError, match="cannot sync"):
            await append
    assert asked == []
    await journal.close()


async def test_a_compacted_record_is_bounded_too(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "issued")
    with pytest.raises(ValueError, match=f"exceeds {MAX_RECORD} bytes"):
        await journal.compact(lambda: [bytes(MAX_RECORD + 1)])
    await journal.append(b"it goes on")
    await journal.close()
    assert await reopened(tmp_path / "issued") == [b"it goes on"]
