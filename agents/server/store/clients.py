"""The registry of clients, as rows (F3)."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from sqlalchemy import Connection, select

from agents.responder.records import ClientRecord
from agents.server.store.insertion import replacing
from agents.server.store.schema import client as table
from agents.server.store.store import Store

__all__ = ["ClientTable", "load", "save"]

_ROWS: Final = replacing(table)
_values: Final = attrgetter(*_ROWS.columns)


class ClientTable:
    """The registry's store of a server: a table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        """Keep these rows, each instead of the one with its id; durable on return.

        Raises:
            StateError: the database refused them; none was kept.
        """
        if rows:
            await self._store.put(save, rows)

    async def load(self) -> list[ClientRecord]:
        """Every row, ordered by id."""
        return await self._store.read(load)


def save(connection: Connection, reports: Sequence[Sequence[ClientRecord]]) -> None:
    """Replace rows by id; of two rows with one id the later counts."""
    latest = {row.id: row for rows in reports for row in rows}
    _ROWS.put(connection, [_values(row) for row in latest.values()])


def load(connection: Connection) -> list[ClientRecord]:
    """Every row, ordered by id."""
    rows = connection.execute(select(table).order_by(table.c.id)).mappings()
    return [ClientRecord(**row) for row in rows]
