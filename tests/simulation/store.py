"""The server's database, in memory: the real schema, the real statements, and the real groups.

write ─┐
put ───┼─►  a moment  ──►  one commit of all that waits  ──►  a moment  ──►  answers
put ───┘        │                                                 │
          a kill here has                                   a kill here has written
          written nothing                                   what nobody is told of

The product's own `Writer` makes the groups, their savepoints and their answers; only its thread
is not there. A group is on the disk at the moment of its commit or not at all: a crash loses all
of the group whose log SQLite had not synced, and nobody has seen any of it, for SQLite shows a
commit to readers after the sync (`synchronous=FULL`). What is inside a commit, its log, its
checksums, a torn page, is SQLite's, and is not here.
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from agents.runtime.errors import StateError, UnavailableError
from agents.server.store.engine import translate
from agents.server.store.upgrade import upgrade
from agents.server.store.writer import Gather, Writer, _Job
from tests.simulation.chance import Random
from tests.simulation.disk import Killed, Strike
from tests.support.files import Failure

__all__ = ["Database", "SimStore", "SimWriter"]

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
        self._writer = SimWriter(database, self.where, alive, kill)
        self._closed = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Store.write`."""
        self._check()
        return await self._writer.write(work)

    async def put(self, rows: Callable[[Connection, Sequence[T]], None], item: T) -> None:
        """See `Store.put`."""
        self._check()
        await self._writer.put(rows, item)

    def gather(self, gather: Gather) -> None:
        """See `Store.gather`."""
        self._writer.gather(gather)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Store.read`."""
        self._check()
        await asyncio.sleep(0)
        self._check()
        try:
            with self._database.engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as exc:
            raise translate(exc, self.where) from exc

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True

    def _check(self) -> None:
        if not self._alive():
            raise Killed
        if self._closed:
            raise UnavailableError("the store is closed")


class SimWriter(Writer):
    """The product's writer, whose thread is a timer."""

    def __init__(
        self,
        database: Database,
        where: str,
        alive: Callable[[], bool],
        kill: Callable[[str], None],
    ) -> None:
        super().__init__(database.engine, where)
        self._database = database
        self._alive = alive
        self._kill = kill
        self._busy = False

    def _run(self) -> None:
        """Nothing: the thread ends as soon as it begins."""

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        super()._hand_over(loop)
        self._wake()

    def _wake(self) -> None:
        if not self._busy and not self._queue.empty():
            self._busy = True
            self._later(self._turn)

    def _turn(self) -> None:
        """Commit what waits, and have it heard a moment later."""
        if not self._alive():
            return
        group = self._next_group()
        strike, self._database.strike = self._database.strike, None
        if strike is not None and strike.failure is not Failure.AFTER:
            self._strike(strike, group)
        else:
            with self._engine.connect() as connection:
                self._commit(connection, group)
            if strike is not None:
                self._strike(strike, group)
        if self._alive():
            self._later(partial(self._heard, group))

    def _heard(self, group: list[_Job]) -> None:
        if self._alive():
            self._deliver(group)
            self._busy = False
            self._wake()

    def _strike(self, strike: Strike, group: list[_Job]) -> None:
        if strike.kill:
            self._kill(f"at a commit: {strike.failure.value}")
        for job in group:
            job.error = StateError(f"cannot commit: {strike.failure.value}")

    def _later(self, work: Callable[[], None]) -> None:
        delay = self._database.chance.uniform(0.0001, 0.01)
        asyncio.get_running_loop().call_later(delay, work)
