"""What a zone server remembers: one append-only, checksummed log.

    ["issued", IssuedRecord]   a certificate, before it leaves
    ["client", ClientRecord]   a client's row
    ["ack", AckRecord]         an acknowledgement
    ["signed", n]              how many certificates were signed before the last compaction

The last one of each client, and the certificates that are still valid, are what is left after
a compaction. Which are valid, no clock decides alone: one that is years ahead would have all of
them forgotten. So a certificate is over when the newest one was signed after its end. A
compaction happens at each start, and whenever the log has grown to a multiple of what the last
one left: each registration adds a row, and a log is opened only up to a size.
`record`, `save` and `save_ack` return when their record is durable.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from agents.responder.records import AckRecord, ClientRecord, IssuedRecord
from agents.runtime import logs
from agents.runtime.clock import Clock
from agents.runtime.errors import DamagedError, StateError
from agents.runtime.files import DISK, Files
from agents.runtime.journal import Journal
from agents.runtime.tape import DiskTape, Tapes

__all__ = ["ZoneRecords"]

log = logs.get_logger()

LEAST_GROWTH: Final = 16 * 1024 * 1024
"""Bytes that a log reaches before it is compacted: some 40,000 registrations."""
MOST_GROWTH: Final = 128 * 1024 * 1024
"""Bytes that any log may grow by: with what it began with it has to stay one that is opened."""
FACTOR: Final = 4
"""A log is compacted when it is so many times what the last compaction left: what is written
for compactions is then at most a third of what is written for clients."""

TYPES: dict[str, Any] = {
    "issued": IssuedRecord,
    "client": ClientRecord,
    "ack": AckRecord,
    "signed": int,
}


class ZoneRecords:
    """The records of one zone server; made by `open`."""

    def __init__(self, journal: Journal, clock: Clock, least_growth: int) -> None:
        self._journal = journal
        self._clock = clock
        self._least_growth = least_growth
        self._compact_at = 0
        self._compacting: asyncio.Task[None] | None = None
        self._issued: dict[int, IssuedRecord] = {}
        self._clients: dict[bytes, ClientRecord] = {}
        self._acks: dict[tuple[bytes, bytes], AckRecord] = {}
        self.signed = 0
        """Certificates that were signed here since this zone server was installed."""

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        files: Files = DISK,
        tapes: Tapes = DiskTape,
        least_growth: int = LEAST_GROWTH,
    ) -> "ZoneRecords":
        """Read the log, drop what is superseded or expired, and write it anew.

        Args:
            path: the file.
            clock: says what has expired.
            files: the disk, for whole files.
            tapes: the same disk, for what is appended.
            least_growth: bytes that the log reaches before it is compacted while it runs.

        Raises:
            DamagedError: a record in the middle of the log is not what was written.
            StateError: the log cannot be read or opened.
        """
        journal, records = Journal.open(path, files, tapes)
        self = cls(journal, clock, least_growth)
        try:
            for record in records:
                self._take(*_decode(path, record))
            await self._compact_or_say()
        except BaseException:
            await journal.close()
            raise
        return self

    async def close(self) -> None:
        """Write what waits, and close the log."""
        if self._compacting is not None:
            await asyncio.wait([self._compacting])
        await self._journal.close()

    async def failed(self) -> NoReturn:
        """Wait until nothing can be kept any more before the log is opened again.

        Raises:
            StateError: it is so.
        """
        await self._journal.failed()

    async def record(self, issued: IssuedRecord) -> None:
        """See `agents.responder.records.IssuanceRecord`."""
        await self._append("issued", issued)

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        """See `agents.responder.records.RegistryStore`."""
        for row in rows:
            await self._append("client", row)

    async def load(self) -> list[ClientRecord]:
        """Every client's row."""
        return sorted(self._clients.values(), key=lambda row: row.id)

    async def save_ack(self, ack: AckRecord) -> None:
        """See `agents.responder.records.AckStore`."""
        await self._append("ack", ack)

    async def load_acks(self) -> list[AckRecord]:
        """Every acknowledgement kept."""
        return list(self._acks.values())

    def _take(self, kind: str, value: Any) -> None:  # noqa: ANN401 - one of TYPES
        match kind:
            case "issued":
                self._issued[value.serial] = value
                self.signed += 1
            case "client":
                self._clients[value.id] = value
            case "ack":
                self._acks[value.component, value.slot] = value
            case _:
                self.signed = value

    async def _append(self, kind: str, value: object) -> None:
        await self._journal.append(_encode(kind, value), partial(self._take, kind, value))
        if self._journal.size >= self._compact_at and self._compacting is None:
            # Nobody's answer waits for it.
            self._compacting = asyncio.create_task(self._compact_now())

    async def _compact_now(self) -> None:
        try:
            await self._compact_or_say()
        finally:
            self._compacting = None

    async def _compact_or_say(self) -> None:
        """What is there says the same in more records, so a full disk keeps nobody from work."""
        try:
            await self._compact()
        except StateError as exc:
            log.warning("records.compaction_failed", reason=str(exc), remedy=exc.hint)
            # Again when there is more to gain: a full disk is not written to at each record.
            self._compact_at = self._journal.size + self._least_growth

    async def _compact(self) -> None:
        await self._journal.compact(self._kept)
        base = self._journal.size
        grown = min(FACTOR * base, base + MOST_GROWTH)
        self._compact_at = max(self._least_growth, grown)

    def _kept(self) -> Iterator[bytes]:
        """What there is to keep now, encoded as it is asked for."""
        now = self._clock.now()
        past = min(now, max((one.at for one in self._issued.values()), default=now))
        self._issued = {s: r for s, r in self._issued.items() if r.not_after > past}
        held: list[tuple[str, object]] = [
            *(("issued", one) for one in self._issued.values()),
            *(("client", one) for one in self._clients.values()),
            *(("ack", one) for one in self._acks.values()),
            # Last: it sets the count that the records above have added to.
            ("signed", self.signed),
        ]
        return (_encode(kind, value) for kind, value in held)


BUILTIN = (bytes, datetime)
SERIAL_BYTES = 20
"""A serial number has more bits than an integer of msgpack, so it is written as bytes."""


def _encode(kind: str, value: object) -> bytes:
    plain = msgspec.to_builtins(value, builtin_types=BUILTIN)
    if kind == "issued":
        plain["serial"] = plain["serial"].to_bytes(SERIAL_BYTES)
    return msgspec.msgpack.encode([kind, plain])


def _decode(path: Path, record: bytes) -> tuple[str, Any]:
    try:
        kind, value = msgspec.msgpack.decode(record, type=tuple[str, Any])
        if kind == "issued":
            value["serial"] = int.from_bytes(value["serial"])
        return kind, msgspec.convert(value, TYPES[kind], builtin_types=BUILTIN)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as exc:
        raise DamagedError(
            f"{path} holds a record that is none of ours: {exc}",
            hint="move it away: clients register again, and what was issued expires",
        ) from exc
