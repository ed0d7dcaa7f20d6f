"""Acknowledgements, one for a component and slot: the last (B12).

Whether one that arrives is better than the one kept is not decided here: after a supersession
(*Which chain* 2) an honest component may acknowledge a smaller number.
"""

import json
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from sqlalchemy import Connection, RowMapping, select

from agents.responder.records import AckRecord, Credential
from agents.server.store.insertion import replacing
from agents.server.store.schema import ack as table
from agents.server.store.store import Store

__all__ = ["AckTable", "load", "save"]

_ROWS: Final = replacing(table)
_values: Final = attrgetter(*_ROWS.columns)
_CREDENTIALS: Final = _ROWS.columns.index("credentials")


class AckTable:
    """The store of acknowledgements of a server: a table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def save_ack(self, ack: AckRecord) -> None:
        """Keep it instead of the last of its component and slot; durable on return.

        Raises:
            StateError: the database refused it.
        """
        await self._store.put(save, ack)

    async def load_acks(self) -> list[AckRecord]:
        """Every acknowledgement kept, ordered by component and slot."""
        return await self._store.read(load)


def save(connection: Connection, acks: Sequence[AckRecord]) -> None:
    """Replace acknowledgements by component and slot; of two of one the later counts."""
    latest = {(ack.component, ack.slot): ack for ack in acks}
    _ROWS.put(connection, [_row(ack) for ack in latest.values()])


def load(connection: Connection) -> list[AckRecord]:
    """Every acknowledgement kept, ordered by component and slot."""
    query = select(table).order_by(table.c.component, table.c.slot)
    return [_ack(row) for row in connection.execute(query).mappings()]


def _row(ack: AckRecord) -> Sequence[object]:
    row = list(_values(ack))
    row[_CREDENTIALS] = _encode(ack.credentials)
    return row


def _ack(row: RowMapping) -> AckRecord:
    return AckRecord(**{**row, "credentials": _decode(row["credentials"])})


def _encode(credentials: Iterable[Credential]) -> str:
    return json.dumps(
        [
            [kind, key_id.hex(), root.hex(), not_after]
            for kind, key_id, root, not_after in credentials
        ],
        separators=(",", ":"),
    )


def _decode(text: str) -> tuple[Credential, ...]:
    return tuple(
        Credential(kind, bytes.fromhex(key_id), bytes.fromhex(root), not_after)
        for kind, key_id, root, not_after in json.loads(text)
    )
