"""The server's database, in memory: the real schema and the real statements.

write  ──►  a moment  ──►  commit  ──►  a moment  ──►  answer
              │                            │
        a kill here has              a kill here has written
        written nothing              what nobody is told of
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from agents.runtime.errors import StateError, UnavailableError
from agents.server.store.engine import translate
from agents.server.store.upgrade import upgrade
from tests.simulation.chance import Random
from tests.simulation.disk import Killed, Strike
from tests.support.files import Failure

__all__ = ["Database", "SimStore"]

T = TypeVar("T")


def _engine(connection: sqlite3.Connection) -> Engine:
    connection.isolation_level = None
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@functools.cache
def _empty() -> bytes:
    """A new database, as the product's own migrations make it."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    engine = _engine(connection)
    with engine.begin() as opened:
        upgrade(opened, "memory")
    content = connection.serialize()
    engine.dispose()
    connection.close()
    return content


class Database:
    """What is on the disk of the server's machine; outlives programs."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.strike: Strike | None = None
        """What becomes of the next write."""
        self.turn = asyncio.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.deserialize(_empty())
        self.engine = _engine(self._connection)

    def has_issued(self, serial: int) -> bool:
        """Whether the issue of this certificate is on record."""
        wanted = serial.to_bytes(20)
        found = self._connection.execute("SELECT serial FROM issued").fetchall()
        return any(bytes(row[0]).rjust(20, b"\0") == wanted for row in found)

    def close(self) -> None:
        """Forget it."""
        self.engine.dispose()
        self._connection.close()


class SimStore:
    """A program's view of the database; stands where `agents.server.store.Store` does.

    Args:
        alive: whether the program still is.
        kill: ends it, at a write.
    """

    def __init__(
        self, database: Database, *, alive: Callable[[], bool], kill: Callable[[str], None]
    ) -> None:
        self.where = "memory"
        self._database = database
        self._alive = alive
        self._kill = kill
        self._closed = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Store.write`."""
        self._check()
        async with self._database.turn:  # answers are in the order of the calls, as the real one's
            await self._moment()
            strike, self._database.strike = self._database.strike, None
            if strike is not None and strike.failure is not Failure.AFTER:
                self._fail(strike)
            result = self._transact(work)
            if strike is not None:
                self._fail(strike)
            await self._moment()
            return result

    async def put(self, rows: Callable[[Connection, Sequence[T]], None], item: T) -> None:
        """See `Store.put`; each item is a group of its own here."""
        await self.write(lambda connection: rows(connection, [item]))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Store.read`."""
        self._check()
        await asyncio.sleep(0)
        self._check()
        return self._transact(work)

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True

    async def _moment(self) -> None:
        await asyncio.sleep(self._database.chance.uniform(0.0001, 0.01))
        self._check()

    def _check(self) -> None:
        if not self._alive():
            raise Killed
        if self._closed:
            raise UnavailableError("the store is closed")

    def _fail(self, strike: Strike) -> None:
        if strike.kill:
            self._kill(f"at a commit: {strike.failure.value}")
            raise Killed
        raise StateError(f"cannot commit: {strike.failure.value}")

    def _transact(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as exc:
            raise translate(exc, self.where) from exc
