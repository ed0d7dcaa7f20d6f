"""The registry of clients, as rows (F3)."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select

from agents.responder.records import ClientRecord
from agents.server.store.schema import client as table
from agents.server.store.store import Store

__all__ = ["ClientTable", "load", "save"]

_COLUMNS: Final = [field.name for field in fields(ClientRecord)]
# Delete and insert is the upsert that every database has; readers see neither half.
_DELETE: Final = delete(table).where(table.c.id == bindparam("gone"))
_INSERT: Final = insert(table)


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
    connection.execute(_DELETE, [{"gone": each} for each in latest])
    connection.execute(
        _INSERT, [{name: getattr(row, name) for name in _COLUMNS} for row in latest.values()]
    )


def load(connection: Connection) -> list[ClientRecord]:
    """Every row, ordered by id."""
    rows = connection.execute(select(table).order_by(table.c.id)).mappings()
    return [ClientRecord(**row) for row in rows]
