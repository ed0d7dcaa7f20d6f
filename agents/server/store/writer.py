"""One thread that writes, for everybody, in groups.

    await write(a)  ─┐
    await put(t, b) ─┼─► queue ─► BEGIN  [savepoint a]  [savepoint b, c]  …  COMMIT ─► answers
    await put(t, c) ─┘            ╰─ what waits while one group commits is the next one ─╯

1. An answer is delivered after the commit of its group, never before: what a caller
   hears of is on disk (issue recorded before the certificate leaves).
2. A commit costs an fsync however much is in it, so a busy store does few commits of
   many writes, and an idle one answers at once: nobody waits for a group to fill. What
   one turn of an event loop brings is handed over at its end, so that it is one group; a
   loop that knows of more to come has it handed over later (`gather`).
3. Each write has a savepoint. One that raises is rolled back alone and hears of its own
   exception; the others of its group do not notice.
4. If the commit itself fails, or there is no connection for it, every write of the group fails:
   none of it is on disk. The next group has a new connection.
5. A cancelled caller does not take its write back. It must treat it as possibly done.
6. What is `put` through one function goes through it together, in one savepoint: a fleet
   that enrols costs a few statements a group and not a few a client. If that raises, it is
   rolled back and each is put alone, so rule 3 holds for them too. A write is not overtaken:
   what came before it is put before it, what came after it after it. Between two writes
   what goes through different functions may change places: they are different tables.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine

from agents.runtime.errors import UnavailableError
from agents.server.store.engine import ERRORS, driver, translate

__all__ = ["MAX_GROUP", "Gather", "Rows", "Work", "Writer"]

T = TypeVar("T")
Work = Callable[[Connection], T]
Rows = Callable[[Connection, Sequence[T]], None]
"""Puts things into one table, in their order: many cost little more than one."""
Gather = Callable[[Callable[[], None]], object]
"""Calls a function soon, when what belongs together has come."""

MAX_GROUP: Final = 256
"""Writes of one commit: bounds how long the first of them waits for the last."""


@dataclass(slots=True)
class _Job:
    """A write that waits, or a thing to put, and where the answer goes."""

    work: Work[Any] | None
    rows: Rows[Any] | None
    item: Any
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """The writing thread. Safe to use from any number of event loops.

    Args:
        engine: Its connections are used by this thread alone; disposed by `close`.
        where: The name of the database in errors.
    """

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._brought: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        self._gathering: dict[asyncio.AbstractEventLoop, Gather] = {}
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def gather(self, gather: Gather) -> None:
        """Say when what the running loop brings is handed over."""
        self._gathering[asyncio.get_running_loop()] = gather

    async def write(self, work: Work[T]) -> T:
        """Run `work` in the writer's transaction; returns its result when it is durable.

        Raises:
            StateError: the database refused it, or its commit failed.
            UnavailableError: the writer is closed.
            Exception: whatever `work` raised.
        """
        return cast(T, await self._enqueue(work, None, None))

    async def put(self, rows: Rows[T], item: T) -> None:
        """Put one thing through `rows`, with what others put through it; durable on return.

        Args:
            rows: The same function for everybody; called again with fewer if it raises.
            item: What is put.

        Raises:
            StateError: the database refused it, or its commit failed.
            UnavailableError: the writer is closed.
            Exception: whatever `rows` raised for it alone.
        """
        await self._enqueue(None, rows, item)

    def _enqueue(
        self, work: Work[Any] | None, rows: Rows[Any] | None, item: object
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        with self._gate:
            if self._closed:
                raise UnavailableError("the store is closed")
            if loop not in self._brought:
                self._brought[loop] = []
                self._gathering.get(loop, loop.call_soon)(partial(self._hand_over, loop))
            self._brought[loop].append(_Job(work, rows, item, loop, answer))
        return answer

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread what a loop has brought."""
        with self._gate:
            for job in self._brought.pop(loop, ()):
                self._queue.put(job)

    def close(self) -> None:
        """Commit what waits, then end the thread; idempotent. Blocks for these commits."""
        with self._gate:
            if not self._closed:
                self._closed = True
                for jobs in self._brought.values():
                    for job in jobs:
                        self._queue.put(job)
                self._brought.clear()
                self._queue.put(None)
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        connection: Connection | None = None
        while group := self._next_group():
            try:
                connection = connection or self._engine.connect()
                self._commit(connection, group)
            except BaseException as exc:  # the thread must outlive whatever a database raises
                for job in group:
                    job.error = self._foreign(exc)
                _give_up(connection)
                connection = None
            self._deliver(group)
        if connection is not None:
            connection.close()

    def _next_group(self) -> list[_Job]:
        """Wait for one write, and take what waits with it; empty at the end."""
        job = self._queue.get()
        group: list[_Job] = []
        while job is not None:
            group.append(job)
            if len(group) == MAX_GROUP:
                return group
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group
        if group:
            self._queue.put(None)  # the end is seen again, after this group
        return group

    def _commit(self, connection: Connection, group: list[_Job]) -> None:
        with connection.begin():
            for jobs in _in_batches(group):
                self._attempt(connection, jobs)

    def _attempt(self, connection: Connection, jobs: Sequence[_Job]) -> None:
        """Do what goes together, in a savepoint; if it fails, each alone."""
        # By the driver: `begin_nested` costs a group more than its rows do.
        cursor = driver(connection)
        cursor.execute("SAVEPOINT attempt")
        try:
            _do(connection, jobs)
            cursor.execute("RELEASE SAVEPOINT attempt")
        except BaseException as exc:
            try:
                cursor.execute("ROLLBACK TO SAVEPOINT attempt")
            except ERRORS as lost:
                # A full disk ends the whole transaction, savepoints and all: rule 4.
                raise exc from lost
            if len(jobs) == 1:
                jobs[0].error = self._foreign(exc)
                return
            for job in jobs:
                self._attempt(connection, [job])

    def _foreign(self, error: BaseException) -> BaseException:
        """The error as callers may see it: no exception of a database crosses the door."""
        if not isinstance(error, ERRORS):
            return error
        translated = translate(error, self._where)
        translated.__cause__ = error
        return translated

    def _deliver(self, group: list[_Job]) -> None:
        """Wake each loop once for all of its answers."""
        for loop in {job.loop for job in group}:
            answered = [job for job in group if job.loop is loop]
            try:
                loop.call_soon_threadsafe(_settle, answered)
            except RuntimeError:
                continue  # that loop is closed: nobody waits there any more


def _give_up(connection: Connection | None) -> None:
    """Close a connection whose commit failed: its transaction may be open still."""
    if connection is not None:
        with suppress(Exception):  # its pool rolls back what is left, which can fail as well
            connection.invalidate()
        with suppress(Exception):
            connection.close()


def _in_batches(group: Sequence[_Job]) -> Iterator[Sequence[_Job]]:
    """A group as it is done: rule 6."""
    waiting: dict[Rows[Any], list[_Job]] = {}
    for job in group:
        if job.rows is not None:
            waiting.setdefault(job.rows, []).append(job)
            continue
        yield from waiting.values()
        waiting.clear()
        yield [job]
    yield from waiting.values()


def _do(connection: Connection, jobs: Sequence[_Job]) -> None:
    """One write, or things that are put through one function."""
    first = jobs[0]
    if first.work is not None:
        first.result = first.work(connection)
    elif first.rows is not None:
        first.rows(connection, [job.item for job in jobs])


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.answer.done():
            continue  # cancelled: rule 5
        if job.error is None:
            job.answer.set_result(job.result)
        else:
            job.answer.set_exception(job.error)
