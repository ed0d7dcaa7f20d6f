"""What was appended to a journal comes back, and what is damaged is found."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime import journal as module
from agents.runtime.errors import DamagedError, StateError
from agents.runtime.files import MAX_FILE
from agents.runtime.journal import MAX_BATCH, MAX_RECORD, Journal
from agents.runtime.tape import DiskTape


async def reopened(path: Path) -> list[bytes]:
    journal, records = Journal.open(path)
    await journal.close()
    return records


async def written(path: Path, batches: list[list[bytes]]) -> list[int]:
    """Write each list as one batch, and return where the file ended after each."""
    journal, _ = Journal.open(path)
    ends = [journal.size]
    for batch in batches:
        await asyncio.gather(*(journal.append(record) for record in batch))
        ends.append(journal.size)
    await journal.close()
    return ends


async def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, records = Journal.open(path)
    assert records == []
    await journal.append(b"one")
    await asyncio.gather(*(journal.append(b"%d" % number) for number in range(100)))
    await journal.append(b"")
    await journal.close()
    assert await reopened(path) == [b"one", *(b"%d" % number for number in range(100)), b""]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_waiting_records_share_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(handle: int) -> None:
        nonlocal syncs
        syncs += 1
        real(handle)

    monkeypatch.setattr(os, "fdatasync", counted)
    journal, _ = Journal.open(tmp_path / "issued")
    await asyncio.gather(*(journal.append(b"x" * 100) for _ in range(1000)))
    await journal.close()
    assert syncs == 1


async def test_append_returns_after_the_sync_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = os.fdatasync

    def slow(handle: int) -> None:
        real(handle)
        order.append("synced")

    monkeypatch.setattr(os, "fdatasync", slow)
    journal, _ = Journal.open(tmp_path / "issued")
    await journal.append(b"x")
    order.append("returned")
    await journal.close()
    assert order == ["synced", "returned"]


async def test_every_cut_of_the_last_batch_keeps_all_before_it(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    *_, start, end = await written(path, [[b"a", b"bb"], [b"ccc"], [b"dddd", b"ee"]])
    whole = path.read_bytes()
    assert len(whole) == end
    for length in range(start, end):
        path.write_bytes(whole[:length])
        assert await reopened(path) == [b"a", b"bb", b"ccc"]
        # What was cut is gone from the file too: the next batch begins there.
        assert path.stat().st_size == start


async def test_every_flipped_byte_of_the_last_batch_is_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    *_, start, end = await written(path, [[b"a"], [b"dddd", b"ee"]])
    whole = path.read_bytes()
    for place in range(start, end):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert await reopened(path) == [b"a"]


async def test_every_flipped_byte_before_the_last_batch_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    start, first, *_ = await written(path, [[b"a", b"bb"], [b"ccc"]])
    whole = path.read_bytes()
    for place in range(start, first):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=f"from byte {start} to byte {first}"):
            Journal.open(path)
        assert path.read_bytes() == damaged


async def test_what_looks_like_a_batch_in_a_damaged_one_hides_none_behind_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "issued"
    start, first, _ = await written(path, [[b"a peer's: " + module._MARKER], [b"acknowledged"]])
    content = bytearray(path.read_bytes())
    content[start] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"from byte {start} to byte {first}"):
        Journal.open(path)
    assert path.read_bytes() == content


async def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    await written(path, [[b"a"]])
    with path.open("ab") as file:
        file.write(bytes(5000))
    assert await reopened(path) == [b"a"]


async def test_a_tail_that_cannot_be_cut_is_named_and_the_file_closed(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    await written(path, [[b"x"]])
    path.write_bytes(path.read_bytes()[:-1])
    closed: list[bool] = []

    class Stiff(DiskTape):
        def cut(self, place: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        def close(self) -> None:
            closed.append(True)
            super().close()

    with pytest.raises(StateError, match="cannot cut the tail"):
        Journal.open(path, tapes=Stiff)
    assert closed == [True]


async def test_a_journal_may_be_larger_than_another_state_file(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    await written(path, [[b"x"]])
    os.truncate(path, MAX_FILE + 1)  # zeros, as some file systems leave after a crash
    assert await reopened(path) == [b"x"]


async def test_a_record_that_looks_like_a_batch_is_none(tmp_path: Path) -> None:
    # The attacker chooses a record, and then the power fails while it is written. It must not
    # make the journal look damaged, nor add a record.
    path = tmp_path / "issued"
    *_, start = await written(path, [[b"a"]])
    forged = module._batch([b"forged"], bytes(16), start + module._HEAD + 4)
    await written(path, [[forged]])
    whole = path.read_bytes()
    digest = start + module._HEAD - 1
    path.write_bytes(whole[:digest] + bytes([whole[digest] ^ 1]) + whole[digest + 1 :])
    assert await reopened(path) == [b"a"]


async def test_each_file_has_a_salt_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    headers = [path.read_bytes()]
    for _ in range(2):
        await journal.compact(list)
        headers.append(path.read_bytes())
    await journal.close()
    assert {len(header) for header in headers} == {module._START}
    assert len(set(headers)) == 3


async def test_a_batch_counts_only_where_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    *_, start, end = await written(path, [[b"a"], [b"revoked"]])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[start:end])
    assert await reopened(path) == [b"a", b"revoked"]


@pytest.mark.parametrize(
    "content", [b"", b"anchorline-log", module._MAGIC, module._MAGIC + bytes(15), b"x" * 100]
)
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "issued"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="not a journal"):
        Journal.open(path)
    assert path.read_bytes() == content


async def test_records_are_bounded(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "issued")
    with pytest.raises(ValueError, match="exceeds"):
        await journal.append(bytes(MAX_RECORD + 1))
    # More than a batch holds, at once: two batches.
    large = [bytes([number]) * MAX_RECORD for number in range(MAX_BATCH // MAX_RECORD + 1)]
    await asyncio.gather(*map(journal.append, large))
    await journal.compact(lambda: large)
    await journal.append(b"after")
    await journal.close()
    assert await reopened(tmp_path / "issued") == [*large, b"after"]


async def test_a_batch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = module._batch

    def watched(records: list[bytes], salt: bytes, offset: int) -> bytes:
        sizes.append(sum(4 + len(record) for record in records))
        return real(records, salt, offset)

    monkeypatch.setattr(module, "_batch", watched)
    large = [bytes(MAX_RECORD)] * 9
    journal, _ = Journal.open(tmp_path / "issued")
    await asyncio.gather(*map(journal.append, large))
    assert len(sizes) == 3
    await journal.compact(lambda: large)
    assert len(sizes) == 6
    assert max(sizes) <= MAX_BATCH
    await journal.close()
    assert await reopened(tmp_path / "issued") == large


async def test_a_cancelled_append_disturbs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    first = asyncio.create_task(journal.append(b"first"))
    second = asyncio.create_task(journal.append(b"second"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await journal.close()
    assert b"second" in await reopened(path)
    assert first.cancelled()


async def test_a_full_disk_fails_those_who_wait_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    await journal.append(b"before")
    real = os.pwrite

    def full(handle: int, data: memoryview, place: int) -> int:
        if len(data) > 10:
            return real(handle, data[:10], place)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StateError, match="no space left") as caught:
            await journal.append(b"lost")
        assert "free some space" in caught.value.hint
    assert path.stat().st_size == journal.size, "of what was written nothing is left"
    await journal.append(b"after")
    await journal.close()
    assert await reopened(path) == [b"before", b"after"]


async def test_nothing_is_acknowledged_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    await journal.append(b"before")

    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(StateError, match="cannot sync"):
            await journal.append(b"unknown")
    with pytest.raises(StateError, match="cannot sync"):
        await journal.append(b"after")
    with pytest.raises(StateError, match="cannot sync") as caught:
        await journal.failed()
    assert "disk" in caught.value.hint
    await journal.close()
    assert (await reopened(path))[0] == b"before"


async def test_what_waits_behind_a_failed_sync_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second sync says yes, as Linux does once it has told of an error.
    journal, _ = Journal.open(tmp_path / "issued")
    real, failures = os.fdatasync, [OSError(errno.EIO, "Input/output error")]

    def once(handle: int) -> None:
        if failures:
            raise failures.pop()
        real(handle)

    monkeypatch.setattr(os, "fdatasync", once)
    # The last does not fit into the batch of the others.
    large = [bytes(MAX_RECORD)] * (MAX_BATCH // MAX_RECORD)
    told = await asyncio.gather(*map(journal.append, large), return_exceptions=True)
    assert not failures
    assert [str(one)[:11] for one in told] == ["cannot sync"] * len(large)
    await journal.close()


async def test_a_journal_is_never_larger_than_one_that_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_JOURNAL", 1000)
    path = tmp_path / "issued"
    journal, _ = Journal.open(path)
    await journal.append(bytes(500))
    with pytest.raises(StateError, match="would exceed 1000 bytes"):
        await journal.append(bytes(500))
    with pytest.raises(StateError, match="would exceed 1000 bytes"):
        await journal.compact(lambda: [bytes(500), bytes(500)])
    await journal.append(b"small")
    await journal.close()
    assert await reopened(path) == [bytes(500), b"small"]


async def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "issued")
    last = asyncio.create_task(journal.append(b"last"))
    await asyncio.sleep(0)
    await journal.close()
    await journal.close()
    await last
    with pytest.raises(RuntimeError):
        await journal.append(b"x")
    assert await reopened(tmp_path / "issued") == [b"last"]


async def test_a_closed_journal_has_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    journal, _ = Journal.open(tmp_path / "issued")
    await journal.append(b"x")
    assert len(set(threading.enumerate()) - before) == 1
    await journal.close()
    assert not set(threading.enumerate()) - before


@given(batches=st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=4), max_size=4))
def test_batches_read_back(batches: list[list[bytes]]) -> None:
    salt = b"s" * 16
    data = b"h" * module._START
    for batch in batches:
        data += module._batch(batch, salt, len(data))
    records, end = module._read(Path("x"), data, salt)
    assert records == [record for batch in batches for record in batch]
    assert end == len(data)


WRITER = """
import asyncio, sys
from pathlib import Path
from agents.runtime.files import DiskFiles
from agents.runtime.journal import Journal

async def main():
    journal, records = Journal.open(Path(sys.argv[1]))
    number = len(records)

    async def write(number):
        await journal.append(b"%d" % number)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

    while True:
        await asyncio.gather(*(write(number + more) for more in range(5)))
        number += 5

asyncio.run(main())
"""


@pytest.mark.sockets
def test_every_acknowledged_record_survives_kill(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    for lives in range(1, 6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(3 * lives)]
            process.send_signal(signal.SIGKILL)
            # Lines that were written before it died count as well.
            acknowledged += [int(line) for line in process.stdout if line.endswith(b"\n")]
        records = asyncio.run(reopened(path))
        assert {b"%d" % number for number in acknowledged} <= set(records)
        assert len(records) == len(set(records))
