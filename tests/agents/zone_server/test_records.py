"""What a zone server remembers: on disk before it counts, through kills and starts."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.responder.records import AckRecord, ClientRecord, Credential, IssuedRecord
from agents.runtime.errors import DamagedError, StateError
from agents.runtime.files import DiskFiles
from agents.runtime.journal import Journal
from agents.zone_server.records import LEAST_GROWTH, ZoneRecords, _encode
from tests.support.clock import FakeClock
from tests.support.logs import logged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def issued(serial: int = 1 << 127, *, days: int = 7, at: datetime = NOW) -> IssuedRecord:
    return IssuedRecord(
        serial=serial,
        kind="client-tls",
        holder=bytes(16),
        key_id=bytes(range(32)),
        issuer=bytes(32),
        root=bytes(32),
        not_before=at,
        not_after=at + days * DAY,
        at=at,
    )


def client(number: int, *, port: int = 1) -> ClientRecord:
    return ClientRecord(
        id=bytes([number] * 16),
        host="host",
        claimed="192.0.2.1",
        seen="192.0.2.2",
        port=port,
        protocol=1,
        version="0.1.0",
        last_registration=NOW,
        key_not_after=NOW + DAY,
        root=bytes(32),
        responder=bytes(16),
        token_out=b"out",
        token_shown=None,
        lost_at=None,
        first_seen=NOW,
    )


def ack(number: int, n: int) -> AckRecord:
    return AckRecord(
        component=bytes([number] * 16),
        slot=bytes(32),
        n=n,
        entry_id=bytes(32),
        spki=b"spki",
        signature=b"signature",
        role="client",
        credentials=(Credential("client-tls", bytes(32), bytes(32), 1_800_000_000),),
        at=NOW,
    )


@asynccontextmanager
async def records(folder: Path, now: datetime = NOW) -> AsyncIterator[ZoneRecords]:
    opened = await ZoneRecords.open(folder / "records.log", FakeClock(now))
    try:
        yield opened
    finally:
        await opened.close()


class TestKept:
    async def test_rows_are_there_at_the_next_start(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            await first.record(issued())
            await first.save([client(1), client(2)])
            await first.save_ack(ack(1, 4))
        async with records(tmp_path) as again:
            assert again.signed == 1
            assert await again.load() == [client(1), client(2)]
            assert await again.load_acks() == [ack(1, 4)]

    async def test_of_a_client_the_last_row_is_kept(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            for port in (1, 2, 3):
                await first.save([client(1, port=port)])
            await first.save_ack(ack(1, 1))
            await first.save_ack(ack(1, 2))
        async with records(tmp_path) as again:
            assert await again.load() == [client(1, port=3)]
            assert await again.load_acks() == [ack(1, 2)]

    @pytest.mark.parametrize("serial", [1, 2**63, 2**64, 2**127, 2**128 - 1, 2**159 - 1])
    async def test_serial_numbers_of_every_size(self, tmp_path: Path, serial: int) -> None:
        async with records(tmp_path) as first:
            await first.record(issued(serial))
        async with records(tmp_path) as again:
            assert list(again._issued) == [serial]
            assert again._issued[serial] == issued(serial)

    @pytest.mark.req("A6")
    async def test_the_count_goes_on_through_starts_and_expiries(self, tmp_path: Path) -> None:
        for start in range(4):
            async with records(tmp_path, NOW + 30 * start * DAY) as now:
                assert now.signed == 3 * start
                for number in range(3):
                    await now.record(issued(1 + number + 10 * start))
                assert now.signed == 3 * start + 3

    async def test_what_has_expired_is_dropped_at_a_start(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            await first.record(issued(1, days=1))
            await first.record(issued(2, days=9))
            await first.record(issued(3, at=NOW + 2 * DAY))
        async with records(tmp_path, NOW + 2 * DAY) as again:
            assert list(again._issued) == [2, 3]
            assert again.signed == 3

    @pytest.mark.req("C8")
    async def test_a_clock_that_is_years_ahead_has_nothing_forgotten(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            await first.record(issued(1, days=1))
            await first.record(issued(2, days=9))
        for ahead in (3652 * DAY, timedelta()):
            async with records(tmp_path, NOW + ahead) as again:
                assert list(again._issued) == [1, 2]

    async def test_the_log_does_not_grow_by_starts(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            for port in range(50):
                await first.save([client(1, port=port)])
        sizes = []
        for _ in range(3):
            async with records(tmp_path):
                sizes.append((tmp_path / "records.log").stat().st_size)
        assert len(set(sizes)) == 1
        assert sizes[0] < 2000


LEAST = 4096


class TestGrowth:
    """A log is compacted while it is in use: it never becomes one that is not opened again."""

    async def test_a_busy_log_stays_small_and_says_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "records.log"
        opened = await ZoneRecords.open(path, FakeClock(NOW), least_growth=LEAST)
        largest = 0
        for port in range(1, 51):
            # Several at once, as they come.
            await asyncio.gather(*(opened.save([client(n, port=port)]) for n in range(1, 6)))
            await opened.record(issued(port))
            await opened.save_ack(ack(1, port))
            largest = max(largest, path.stat().st_size)
        await opened.close()
        assert 50 * 5 * len(_encode("client", client(1))) > 10 * LEAST
        assert largest < max(LEAST, 4 * path.stat().st_size) + 5 * 1024
        async with records(tmp_path) as again:
            assert await again.load() == [client(n, port=50) for n in range(1, 6)]
            assert await again.load_acks() == [ack(1, 50)]
            assert (sorted(again._issued), again.signed) == (list(range(1, 51)), 50)

    async def test_what_has_expired_is_dropped_while_it_runs(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "records.log", FakeClock(NOW)
        opened = await ZoneRecords.open(path, clock, least_growth=LEAST)
        for serial in range(1, 11):
            await opened.record(issued(serial, days=1))
        clock.move(2 * DAY)
        await opened.record(issued(11, at=clock.now()))
        for port in range(100):
            await opened.save([client(1, port=port)])
        await opened.close()
        # Read as it lies there, without the compaction of a start.
        journal, kept = Journal.open(path)
        await journal.close()
        assert sum(b"client-tls" in record for record in kept) == 1
        async with records(tmp_path) as again:
            assert again.signed == 11

    async def test_a_compaction_is_rare(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What compactions write is a fraction of what clients do, however much is kept."""
        written: list[int] = []
        real = DiskFiles.write_atomic

        def counted(self: DiskFiles, path: Path, data: bytes, mode: int = 0o600) -> None:
            written.append(len(data))
            real(self, path, data, mode)

        monkeypatch.setattr(DiskFiles, "write_atomic", counted)
        path = tmp_path / "records.log"
        opened = await ZoneRecords.open(path, FakeClock(NOW), least_growth=LEAST)
        for port in range(1, 21):
            await asyncio.gather(*(opened.save([client(n, port=port)]) for n in range(1, 101)))
        await opened.close()
        appended = 20 * 100 * len(_encode("client", client(1)))
        assert len(written) >= 3
        assert sum(written) < appended / 2

    async def test_a_disk_that_is_full_costs_no_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = await ZoneRecords.open(
            tmp_path / "records.log", FakeClock(NOW), least_growth=LEAST
        )

        def full(self: DiskFiles, path: Path, data: bytes, mode: int = 0o600) -> None:
            raise StateError(f"cannot write {path}: no space left on device")

        with monkeypatch.context() as patch, logged() as lines:
            patch.setattr(DiskFiles, "write_atomic", full)
            for port in range(60):
                await opened.save([client(1, port=port)])
        said = [line for line in lines if line["event"] == "records.compaction_failed"]
        assert 1 <= len(said) <= 4
        assert "no space left" in str(said[0]["reason"])
        await opened.save([client(2)])
        await opened.close()
        async with records(tmp_path) as again:
            assert await again.load() == [client(1, port=59), client(2)]

    @pytest.mark.req("C8")
    async def test_a_start_on_a_full_disk_reads_what_there_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with records(tmp_path) as first:
            await first.record(issued())

        def full(self: DiskFiles, path: Path, data: bytes, mode: int = 0o600) -> None:
            raise StateError(f"cannot write {path}: no space left on device", "free some space")

        monkeypatch.setattr(DiskFiles, "write_atomic", full)
        with logged() as lines:
            async with records(tmp_path) as again:
                assert again._issued == {issued().serial: issued()}
        (line,) = [line for line in lines if line["event"] == "records.compaction_failed"]
        assert line["remedy"] == "free some space"


class TestDamage:
    async def test_a_record_that_is_none_of_ours_is_named(self, tmp_path: Path) -> None:
        journal, _ = Journal.open(tmp_path / "records.log")
        await journal.append(b"\x92\xa5other\x01")
        await journal.close()
        with pytest.raises(DamagedError, match="none of ours") as caught:
            async with records(tmp_path):
                pass
        assert caught.value.hint

    async def test_a_torn_end_costs_the_torn_record_alone(self, tmp_path: Path) -> None:
        async with records(tmp_path) as first:
            await first.save([client(1)])
            await first.save([client(2)])
        path = tmp_path / "records.log"
        path.write_bytes(path.read_bytes()[:-3])
        async with records(tmp_path) as again:
            assert await again.load() == [client(1)]


WRITER = """
import asyncio, sys
from pathlib import Path
from agents.zone_server.records import ZoneRecords
from tests.agents.zone_server.test_records import NOW, client, issued
from tests.support.clock import FakeClock

async def main() -> None:
    path, least_growth = Path(sys.argv[1]) / "records.log", int(sys.argv[2])
    opened = await ZoneRecords.open(path, FakeClock(NOW), least_growth=least_growth)
    for number in range(100000):
        await opened.save([client(1, port=number)])
        await opened.record(issued(1 + number))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.sockets
@pytest.mark.req("A6", "C8")
@pytest.mark.parametrize(
    ("answers", "least_growth"),
    [(1, LEAST_GROWTH), (2, LEAST_GROWTH), (40, LEAST_GROWTH), (7, 1), (40, LEAST), (150, LEAST)],
    ids=["first", "second", "many", "at every record", "few compactions", "many compactions"],
)
async def test_what_was_recorded_before_a_kill_is_there_after_it(
    tmp_path: Path, answers: int, least_growth: int
) -> None:
    """The certificate leaves when `record` has returned: none that left may be missing."""
    left = killed_after(tmp_path, answers, least_growth)
    async with records(tmp_path) as again:
        assert left <= set(again._issued)
        assert again.signed == len(again._issued)
        (row,) = await again.load()
        assert row.port >= max(left) - 1


def killed_after(folder: Path, answers: int, least_growth: int) -> set[int]:
    """Let a process record, kill it after so many; the serials whose `record` had returned."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(least_growth)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert writer.stdout is not None
    with writer:
        for _ in range(answers):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    return {1 + number for number in range(answers)} | {1 + int(number) for number in rest}
