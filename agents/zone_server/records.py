"""What a zone server remembers: one append-only, checksummed log (design, where state lives).

    ["issued", IssuedRecord]   a certificate, before it leaves
    ["client", ClientRecord]   a client's row
    ["ack", AckRecord]         an acknowledgement
    ["signed", n]              how many certificates were signed before the last compaction

The last one of each client, and the certificates that are still valid, are what is left after
a compaction, which happens at each start. `record`, `save` and `save_ack` return when their
record is durable.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agents.responder.records import AckRecord, ClientRecord, IssuedRecord
from agents.runtime.errors import DamagedError
from agents.runtime.journal import Journal

__all__ = ["ZoneRecords"]

TYPES: dict[str, Any] = {
    "issued": IssuedRecord,
    "client": ClientRecord,
    "ack": AckRecord,
    "signed": int,
}


class ZoneRecords:
    """The records of one zone server; made by `open`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._issued: dict[int, IssuedRecord] = {}
        self._clients: dict[bytes, ClientRecord] = {}
        self._acks: dict[tuple[bytes, bytes], AckRecord] = {}
        self.signed = 0
        """Certificates that were signed here since this zone server was installed."""

    @classmethod
    async def open(cls, path: Path, now: datetime) -> "ZoneRecords":
        """Read the log, drop what is superseded or expired, and write it anew.

        Raises:
            DamagedError: a record in the middle of the log is not what was written.
        """
        journal, records = Journal.open(path)
        self = cls(journal)
        for record in records:
            self._take(*_decode(path, record))
        self._issued = {s: r for s, r in self._issued.items() if r.not_after > now}
        await journal.compact(self._kept())
        return self

    async def close(self) -> None:
        """Write what waits, and close the log."""
        await self._journal.close()

    async def record(self, issued: IssuedRecord) -> None:
        """See `agents.responder.records.IssuanceRecord`."""
        await self._journal.append(_encode("issued", issued))
        self._take("issued", issued)

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        """See `agents.responder.records.RegistryStore`."""
        for row in rows:
            await self._journal.append(_encode("client", row))
            self._take("client", row)

    async def load(self) -> list[ClientRecord]:
        """Every client's row."""
        return sorted(self._clients.values(), key=lambda row: row.id)

    async def save_ack(self, ack: AckRecord) -> None:
        """See `agents.responder.records.AckStore`."""
        await self._journal.append(_encode("ack", ack))
        self._take("ack", ack)

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

    def _kept(self) -> list[bytes]:
        return [
            *(_encode("issued", one) for one in self._issued.values()),
            *(_encode("client", one) for one in self._clients.values()),
            *(_encode("ack", one) for one in self._acks.values()),
            # Last: it sets the count that the records above have added to.
            _encode("signed", self.signed),
        ]


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
