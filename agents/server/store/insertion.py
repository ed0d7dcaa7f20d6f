"""Rows on their way into a table, for what a whole fleet writes all day.

    INSERT INTO client (id, host, ...) VALUES (?, ?, ...), (?, ?, ...)
    ON CONFLICT (id) DO UPDATE SET host = excluded.host, ...

Core makes an object of every execution, which takes longer than SQLite takes for the rows. Here a
statement is a text that is made once, and the driver's own cursor does it:

1. The text is made from the schema, in words that SQLite and PostgreSQL share.
2. A value passes through the type of its column, as it does in Core.
3. Many rows are one statement. The driver gives the interpreter to others in every statement, and
   gets it back when they let go of it: a row each would cost a busy server two changes of thread
   a row. A statement has a power of two of rows, so that few texts are kept prepared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.exc import StatementError
from sqlalchemy.types import TypeDecorator

from agents.server.store.engine import driver

__all__ = ["MOST", "Insertion", "replacing"]

MOST: Final = 32
"""Rows of one statement; with 15 columns about 500 parameters, of 999 that any SQLite takes."""


class Insertion:
    """Puts rows into one table.

    Args:
        table: Which.
        found: What becomes of the columns of a row that is there already, in SQL, by their names:
            `excluded.x` is the new value. Empty: such a row is an error.
    """

    def __init__(self, table: Table, found: Mapping[str, str] | None = None) -> None:
        self.columns: Final = tuple(column.name for column in table.columns)
        """The order of a row's values."""
        self._head = f"INSERT INTO {table.name} {_listed(self.columns)} VALUES"
        self._row = _listed("?" * len(self.columns))
        self._tail = ""
        if found:
            key = _listed([column.name for column in table.primary_key.columns])
            changes = ", ".join(f"{name} = {value}" for name, value in found.items())
            self._tail = f"ON CONFLICT {key} DO UPDATE SET {changes}"
        self._conversions: list[tuple[int, Callable[[Any, Dialect], object]]] = [
            (place, column.type.process_bind_param)
            for place, column in enumerate(table.columns)
            if isinstance(column.type, TypeDecorator)
        ]
        self._text = lru_cache(maxsize=None)(self._made)

    def put(self, connection: Connection, rows: Sequence[Sequence[object]]) -> None:
        """Put rows; no two of them with one key.

        Raises:
            StatementError: a value that its column cannot have.
            sqlite3.Error: the database refused them; some may have been put.
        """
        cursor = driver(connection)
        done = 0
        while done < len(rows):
            some = rows[done : done + min(MOST, 1 << (len(rows) - done).bit_length() - 1)]
            statement = self._text(len(some))
            try:
                values = self._values(some, connection.dialect)
            except ValueError as exc:
                raise StatementError(str(exc), statement, None, exc) from exc
            cursor.execute(statement, values)
            done += len(some)

    def _values(self, rows: Sequence[Sequence[object]], dialect: Dialect) -> list[object]:
        """The values of these rows, one after the other, as the driver takes them."""
        values: list[object] = []
        for row in rows:
            start = len(values)
            values += row
            for place, convert in self._conversions:
                values[start + place] = convert(row[place], dialect)
        return values

    def _made(self, count: int) -> str:
        return " ".join((self._head, ", ".join([self._row] * count), self._tail))


def replacing(table: Table) -> Insertion:
    """Puts each row instead of the one that has its key."""
    names = [column.name for column in table.columns if not column.primary_key]
    return Insertion(table, {name: f"excluded.{name}" for name in names})


def _listed(words: Iterable[str]) -> str:
    return f"({', '.join(words)})"
