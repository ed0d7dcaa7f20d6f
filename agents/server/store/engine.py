"""The database under the store: how it is opened, and what its errors mean.

Everything that only SQLite knows is in this file; the rest of the store speaks SQLAlchemy
Core, but for what is done for every group of writes, which it has `driver` do. SQLite is opened so:

1. The file is made 0600 before SQLite sees it; its `-wal` and `-shm` take its mode.
2. `journal_mode=WAL`: readers do not wait for the writer. A file system that cannot do
   it is refused.
3. `synchronous=FULL`: a commit has reached the disk when it returns. Records of issue
   rest on that.
4. Python's sqlite3 begins no transactions by itself; ours do, at SQLAlchemy's word. Else
   a SAVEPOINT outside a transaction would be one, and a migration would not be one.
5. A writer begins IMMEDIATE, so that it waits for the lock before it has read anything;
   a reader is `query_only`.
6. `temp_store=MEMORY`: what a savepoint keeps of pages, in case it is rolled back, is a few
   MiB at the most. In a temporary file, made and deleted for each group of writes, it costs
   as much as the group's commit.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, SQLAlchemyError, StatementError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from agents.runtime.errors import DamagedError, StateError, reason_of

__all__ = ["ERRORS", "check", "driver", "locate", "open_engine", "translate"]

ERRORS: Final = (SQLAlchemyError, sqlite3.Error)
"""What a database raises, by way of Core or of its driver; `translate` takes either."""

BUSY_TIMEOUT: Final = 10_000
"""Milliseconds to wait for a lock that somebody else holds, such as a backup."""

RESTORE: Final = "stop the server, keep the file as evidence, and restore the last backup"
SPACE: Final = "free some space on its file system"
ACCESS: Final = "check owner and mode of the file and its folder"


def locate(path_or_url: Path | str) -> URL:
    """The URL of a database, from a URL or from the path of an SQLite file.

    Raises:
        StateError: a URL of a database that this version does not support.
    """
    if isinstance(path_or_url, Path) or "://" not in path_or_url:
        return URL.create("sqlite", database=os.fspath(path_or_url))
    try:
        url = make_url(path_or_url)
    except ArgumentError as exc:
        raise StateError(f"database url {path_or_url!r:.60} cannot be read") from exc
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        where = url.render_as_string(hide_password=True)
        raise StateError(f"database {where} is not supported", "give the path of a file")
    return url


def open_engine(url: URL, *, connections: int, read_only: bool) -> Engine:
    """An engine of at most `connections` connections, which it keeps open.

    Raises:
        StateError: the file is not there and cannot be made.
    """
    _make_file(Path(str(url.database)))
    engine = create_engine(url, poolclass=QueuePool, pool_size=connections, max_overflow=0)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA temp_store=MEMORY")
            if read_only:
                cursor.execute("PRAGMA query_only=ON")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver(connection).execute(begin)

    return engine


def driver(connection: Connection) -> DBAPICursor:
    """A cursor of the driver itself, in the connection's transaction.

    For a statement that is always the same: `Connection` makes several objects for each.
    """
    return connection.connection.cursor()


def check(connection: Connection, where: str) -> None:
    """Read the whole file once, so that damage is found at start and not in a year.

    Costs a read of the file: about 0.1 s for the registry of 25,000 clients.

    Raises:
        DamagedError: it is an SQLite file whose pages contradict each other.
        StateError: its file system cannot keep a write-ahead log.
    """
    mode = connection.execute(text("PRAGMA journal_mode")).scalar_one()
    if mode != "wal":
        raise StateError(
            f"{where} cannot use a write-ahead log, only {mode!r}",
            "put the state directory on a local file system",
        )
    verdict = str(connection.execute(text("PRAGMA quick_check(1)")).scalars().first())
    if verdict != "ok":
        raise DamagedError(f"{where} is damaged: {verdict.lower():.200}", RESTORE)


def translate(error: SQLAlchemyError | sqlite3.Error, where: str) -> StateError:
    """What an error of the database means to an operator. Raise the result `from` it."""
    original = error.orig if isinstance(error, StatementError) else error
    name = getattr(original, "sqlite_errorname", None) or ""
    said = str(original).lower()
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return DamagedError(f"{where} is damaged: {said}", RESTORE)
    if name.startswith("SQLITE_FULL"):
        return StateError(f"{where} cannot grow: {said}", SPACE)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StateError(f"{where} cannot be opened: {said}", ACCESS)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StateError(f"{where} is locked by another program: {said}", "end that program")
    return StateError(f"{where} refused: {said}")


def _make_file(path: Path) -> None:
    """Rule 1. A crash right after it leaves an empty file, which opens as a new store."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise StateError(f"{path} cannot be opened: {reason_of(exc)}", ACCESS) from exc
