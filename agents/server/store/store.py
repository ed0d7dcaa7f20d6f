"""A server's store: one writer that commits in groups, readers beside it.

    store = Store.open(state / "server.db")
    approval = await store.write(partial(approvals.decide, identity=..., ...))
    rows = await store.read(approvals.every)
    store.close()

What is written or read is a function of a connection, so that several nouns can change in
one transaction (a decision and its line in the activity log). Such a function runs on
another thread: it takes values, returns values, never commits, and never returns a cursor.
Read your own writes: a read that begins after a write returned sees it.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Engine

from agents.runtime.errors import UnavailableError
from agents.server.store.engine import ERRORS, check, locate, open_engine, translate
from agents.server.store.upgrade import upgrade
from agents.server.store.writer import Gather, Rows, Work, Writer

__all__ = ["READERS", "Store"]

T = TypeVar("T")

READERS: Final = 2
"""Reading threads: a slow list must not delay a registration's look-up."""


class Store:
    """An open database of the newest schema. Made by `open`.

    Args:
        url: Where it is.
        writer: The thread of its writes.
        readers: The engine of its reads, `READERS` connections.
    """

    def __init__(self, url: URL, writer: Writer, readers: Engine) -> None:
        self.where: Final = _name(url)
        self._writer = writer
        self._engine = readers
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._closed = False

    @classmethod
    def open(cls, path_or_url: Path | str) -> Self:
        """Open a database, or make it, and bring its schema up to date.

        Blocks: it is meant for the start, before anybody is served.

        Raises:
            DamagedError: it is no database, or a damaged one; nothing was changed.
            StateError: it cannot be opened, or is of a newer version or another program.
        """
        url = locate(path_or_url)
        engine = open_engine(url, connections=1, read_only=False)
        where = _name(url)
        try:
            with engine.begin() as connection:
                check(connection, where)
                upgrade(connection, where)
        except ERRORS as exc:
            engine.dispose()
            raise translate(exc, where) from exc
        except BaseException:
            engine.dispose()
            raise
        readers = open_engine(url, connections=READERS, read_only=True)
        return cls(url, Writer(engine, where), readers)

    def gather(self, gather: Gather) -> None:
        """Say when what the running loop writes is committed, instead of after each turn.

        Args:
            gather: calls a function soon, when what belongs together has come.
        """
        self._writer.gather(gather)

    async def write(self, work: Work[T]) -> T:
        """Run `work(connection)` in the next group; returns when it is durable.

        Raises:
            StateError: the database refused it, or the commit failed: nothing was kept.
            UnavailableError: the store is closed.
            Exception: whatever `work` raised; nothing of this work was kept.
        """
        return await self._writer.write(work)

    async def put(self, rows: Rows[T], item: T) -> None:
        """Have `rows(connection, [..., item, ...])` called in the next group; durable on return.

        For what many do at once: everything that waits for the same function is put by one call.

        Raises:
            StateError: the database refused it, or the commit failed: it was not kept.
            UnavailableError: the store is closed.
            Exception: whatever `rows` raised for it alone.
        """
        await self._writer.put(rows, item)

    async def read(self, work: Work[T]) -> T:
        """Run `work(connection)` on a reading thread, in a transaction that cannot write.

        Raises:
            StateError: the database refused it.
            UnavailableError: the store is closed.
            Exception: whatever `work` raised.
        """
        if self._closed:
            raise UnavailableError("the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, work)

    def close(self) -> None:
        """Commit what waits, end the threads, close the files; idempotent."""
        self._closed = True
        self._threads.shutdown()
        self._engine.dispose()
        self._writer.close()

    def _read(self, work: Work[T]) -> T:
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except ERRORS as exc:
            raise translate(exc, self.where) from exc


def _name(url: URL) -> str:
    """How errors call the database: its path, or its URL without the password."""
    is_file = url.get_backend_name() == "sqlite"
    return str(url.database) if is_file else url.render_as_string(hide_password=True)
