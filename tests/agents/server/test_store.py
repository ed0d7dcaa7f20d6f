import asyncio
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, RootTransaction, create_engine, event, text

from agents.runtime.errors import DamagedError, StateError, UnavailableError
from agents.server.store import Store
from agents.server.store.engine import check, locate, open_engine
from agents.server.store.issued import IssuedTable
from agents.server.store.schema import METADATA
from agents.server.store.upgrade import configuration
from agents.server.store.writer import MAX_GROUP

PATIENCE = 30.0
"""Seconds after which a write that is never answered has failed the test."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path)
    yield opened
    opened.close()


OLD = "x'01', x'07', 'client-tls', CAST('holder' AS BLOB), x'02', x'03', 0, 9999999999, 0"
"""A row of an issue, as the first schema has it."""


def put(name: str) -> "Put":
    return Put(name)


class Put:
    """A write of one row; returns the transaction of the group that it was in."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, connection: Connection) -> RootTransaction | None:
        connection.execute(
            text("INSERT INTO issuer_count VALUES (:issuer, 'root', 1)"),
            {"issuer": self.name.encode()},
        )
        transaction = connection.get_transaction()
        return transaction if isinstance(transaction, RootTransaction) else None


class Gate:
    """A write that keeps the writer busy until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.entered.set()
        self.opened.wait()


def put_many(connection: Connection) -> None:
    """Write half a MiB of pages."""
    connection.execute(
        text("INSERT OR REPLACE INTO issuer_count VALUES (:issuer, :kind, 1)"),
        [{"issuer": bytes([number]), "kind": "x" * 4096} for number in range(128)],
    )


def names(path: Path) -> set[str]:
    """What another program sees of the committed rows."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT issuer FROM issuer_count").fetchall()
    connection.close()
    return {bytes(row[0]).decode() for row in rows}


def fail(connection: Connection) -> None:
    put("half")(connection)
    raise LookupError("not mine")


async def handed_over() -> None:
    """Let the tasks that were made run, and what this turn has brought reach the writer."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def behind_a_gate(store: Store, count: int) -> tuple[Gate, list["asyncio.Task[object]"]]:
    """Writes that wait together, behind one that keeps the writer busy."""
    gate = Gate()
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(store.write(gate))]
    await asyncio.to_thread(gate.entered.wait)
    tasks += [asyncio.create_task(store.write(put(f"w{i}"))) for i in range(count)]
    await handed_over()
    return gate, tasks


async def test_an_answer_comes_after_its_commit(store: Store, path: Path) -> None:
    await store.write(put("a"))
    assert names(path) == {"a"}


async def test_a_read_that_follows_a_write_sees_it(store: Store) -> None:
    await store.write(put("a"))
    query = text("SELECT count(*) FROM issuer_count")
    assert await store.read(lambda connection: connection.execute(query).scalar()) == 1


async def test_writes_that_wait_together_share_one_commit(store: Store, path: Path) -> None:
    gate, tasks = await behind_a_gate(store, 50)
    gate.opened.set()
    transactions = (await asyncio.gather(*tasks))[1:]
    assert len(set(transactions)) == 1
    assert isinstance(transactions[0], RootTransaction)
    assert len(names(path)) == 50


async def test_a_group_is_bounded(store: Store) -> None:
    gate, tasks = await behind_a_gate(store, MAX_GROUP + 1)
    gate.opened.set()
    assert len(set((await asyncio.gather(*tasks))[1:])) == 2


async def test_one_write_that_fails_costs_nobody_else_of_its_group(
    store: Store, path: Path
) -> None:
    gate, tasks = await behind_a_gate(store, 2)
    bad = asyncio.create_task(store.write(fail))
    last = asyncio.create_task(store.write(put("last")))
    await handed_over()
    gate.opened.set()
    with pytest.raises(LookupError, match="not mine"):
        await bad
    assert len({*(await asyncio.gather(*tasks))[1:], await last}) == 1
    assert names(path) == {"w0", "w1", "last"}


class Putting:
    """Puts rows of one kind, all that came together in one statement; remembers what came."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, connection: Connection, names: Sequence[str]) -> None:
        self.calls.append(tuple(names))
        connection.execute(
            text("INSERT INTO issuer_count VALUES (:issuer, :kind, 1)"),
            [{"issuer": name.encode(), "kind": self.kind} for name in names],
        )


async def gathered(store: Store, waiting: Sequence[Coroutine[Any, Any, object]]) -> list[object]:
    """What becomes of these when they wait together."""
    gate, first = await behind_a_gate(store, 0)
    tasks = [asyncio.create_task(one) for one in waiting]
    await handed_over()
    gate.opened.set()
    await first[0]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_put_together_is_one_call(store: Store, path: Path) -> None:
    putting = Putting("root")
    given_names = [f"w{i}" for i in range(50)]
    outcomes = await gathered(store, [store.put(putting, name) for name in given_names])
    assert outcomes == [None] * 50
    assert putting.calls == [tuple(given_names)]
    assert names(path) == set(given_names)


async def test_of_what_is_put_together_only_the_bad_one_fails(store: Store, path: Path) -> None:
    await store.write(put("taken"))
    putting = Putting("root")
    given_names = ["w0", "w1", "taken", "w2"]
    outcomes = await gathered(store, [store.put(putting, name) for name in given_names])
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        type(None),
        StateError,
        type(None),
    ]
    assert names(path) == {"taken", "w0", "w1", "w2"}


async def test_what_is_put_overtakes_no_write(store: Store) -> None:
    one, other, seen = Putting("root"), Putting("client-ca"), list[int]()

    def count(connection: Connection) -> None:
        seen.append(connection.execute(text("SELECT count(*) FROM issuer_count")).scalar_one())

    await gathered(
        store,
        [
            store.put(one, "a"),
            store.put(other, "b"),
            store.put(one, "c"),
            store.write(count),
            store.put(one, "d"),
            store.write(count),
        ],
    )
    assert one.calls == [("a", "c"), ("d",)]
    assert other.calls == [("b",)]
    assert seen == [3, 4]


async def test_what_one_turn_brings_is_one_group(store: Store) -> None:
    transactions = await asyncio.gather(*(store.write(put(f"w{i}")) for i in range(50)))
    assert len(set(transactions)) == 1


async def test_a_loop_says_when_what_it_brings_is_one_group(store: Store, path: Path) -> None:
    waiting = list[Callable[[], None]]()
    store.gather(waiting.append)
    tasks = list[asyncio.Task[object]]()
    for number in range(5):
        tasks.append(asyncio.create_task(store.write(put(f"w{number}"))))
        await handed_over()
    (hand_over,) = waiting
    assert names(path) == set()
    hand_over()
    assert len(set(await asyncio.gather(*tasks))) == 1
    assert len(names(path)) == 5
    tasks.append(asyncio.create_task(store.write(put("next"))))
    await handed_over()
    waiting[1]()
    await asyncio.gather(*tasks)


async def test_close_commits_what_was_not_handed_over_yet(store: Store, path: Path) -> None:
    tasks = [asyncio.create_task(store.write(put(f"w{i}"))) for i in range(3)]
    await asyncio.sleep(0)
    store.close()
    await asyncio.gather(*tasks)
    assert names(path) == {"w0", "w1", "w2"}


class Exploding(Putting):
    """Raises where it meets a name that is told to, after it has put what it was given."""

    def __call__(self, connection: Connection, names: Sequence[str]) -> None:
        super().__call__(connection, names)
        if any(name.startswith("bad") for name in names):
            raise LookupError("not mine")


KEPT = st.sampled_from(["good", "bad", "twice", "write", "bad-write"])


@settings(deadline=None, max_examples=12)
@given(kinds=st.lists(st.tuples(KEPT, st.booleans()), min_size=1, max_size=30))
def test_whatever_waits_together_each_gets_its_own_answer(kinds: list[tuple[str, bool]]) -> None:
    """One that fails costs nobody else, and what was answered is what is there, once each."""
    wanted = [f"{kind}{'' if kind == 'twice' else place}" for place, (kind, _) in enumerate(kinds)]

    sorts = (Exploding("root"), Exploding("client-ca"))

    async def run(store: Store) -> list[object]:
        return await gathered(
            store,
            [
                store.write(partial(sorts[which], names=[name]))
                if "write" in kind
                else store.put(sorts[which], name)
                for name, (kind, which) in zip(wanted, kinds, strict=True)
            ],
        )

    with TemporaryDirectory() as folder:
        path = Path(folder) / "server.db"
        store = Store.open(path)
        try:
            outcomes = asyncio.run(run(store))
        finally:
            store.close()
        kept = Counter(names(path))
    done = [name for name, outcome in zip(wanted, outcomes, strict=True) if outcome is None]
    assert Counter(done) == kept
    assert set(done) == {name for name in wanted if not name.startswith("bad")}
    failed = {
        name: type(outcome)
        for name, outcome in zip(wanted, outcomes, strict=True)
        if outcome is not None and name.startswith("bad")
    }
    assert set(failed.values()) <= {LookupError}


async def test_a_commit_that_fails_fails_its_whole_group(store: Store, path: Path) -> None:
    def breaks_the_commit(connection: Connection) -> None:
        connection.execute(text("PRAGMA defer_foreign_keys=ON"))
        connection.execute(text("INSERT INTO bundle_export VALUES (1, x'00', 0, 'me')"))

    gate, tasks = await behind_a_gate(store, 2)
    tasks.append(asyncio.create_task(store.write(breaks_the_commit)))
    await handed_over()
    gate.opened.set()
    outcomes = (await asyncio.gather(*tasks, return_exceptions=True))[1:]
    assert [type(outcome) for outcome in outcomes] == [StateError] * 3
    assert names(path) == set()
    await store.write(put("after"))
    assert names(path) == {"after"}


@pytest.mark.req("C8")
async def test_a_database_that_ends_a_transaction_by_itself_keeps_nothing_of_its_group(
    store: Store, path: Path
) -> None:
    """As SQLite does when a disk is full: what is written after that must not be alone on disk."""

    def ended(connection: Connection) -> None:
        connection.execute(text("ROLLBACK"))
        connection.execute(text("SELECT * FROM nothing"))

    gate, tasks = await behind_a_gate(store, 1)
    tasks.append(asyncio.create_task(store.write(ended)))
    tasks.append(asyncio.create_task(store.write(put("last"))))
    await handed_over()
    gate.opened.set()
    outcomes = (await asyncio.gather(*tasks, return_exceptions=True))[1:]
    assert [type(outcome) for outcome in outcomes] == [StateError] * 3
    assert names(path) == set()
    await store.write(put("after"))
    assert names(path) == {"after"}


@pytest.mark.req("C8")
async def test_a_disk_that_fails_for_a_while_costs_the_writes_of_that_while(
    store: Store, path: Path
) -> None:
    """Neither the commit works, nor the rollback, nor a new connection; then all is well."""
    broken = True

    def break_down(*_: object) -> None:
        if broken:
            raise sqlite3.OperationalError("disk I/O error")

    for moment in ("commit", "rollback", "reset", "connect"):
        event.listen(store._writer._engine, moment, break_down, insert=True)
    for name in ("lost", "lost too"):
        with pytest.raises(StateError, match="i/o error"):
            await asyncio.wait_for(store.write(put(name)), PATIENCE)
    broken = False
    await asyncio.wait_for(store.write(put("kept")), PATIENCE)
    assert names(path) == {"kept"}


async def test_a_full_disk_is_named_and_survived(store: Store) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
        put("x" * 100_000)(connection)

    with pytest.raises(StateError, match="cannot grow") as caught:
        await store.write(fill)
    assert "free some space" in caught.value.hint
    await store.write(put("small"))


async def test_what_the_database_refuses_is_no_exception_of_sqlalchemy(store: Store) -> None:
    await store.write(put("a"))
    with pytest.raises(StateError, match="unique"):
        await store.write(put("a"))
    with pytest.raises(StateError, match="no such table: missing"):
        await store.read(lambda connection: connection.execute(text("SELECT * FROM missing")))


async def test_a_reader_cannot_write(store: Store, path: Path) -> None:
    with pytest.raises(StateError, match="readonly"):
        await store.read(put("a"))
    assert names(path) == set()


async def test_a_writer_has_the_lock_before_it_reads(store: Store, path: Path) -> None:
    """Else what it has read could be another's before it writes, and its commit be refused."""

    def read_and_write(connection: Connection) -> None:
        connection.execute(text("SELECT count(*) FROM issuer_count")).scalar_one()
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO issuer_count VALUES (x'00', 'root', 1)")
        finally:
            other.close()
        put("mine")(connection)

    await store.write(read_and_write)
    assert names(path) == {"mine"}


async def test_a_cancelled_caller_disturbs_nobody(store: Store, path: Path) -> None:
    gate, tasks = await behind_a_gate(store, 2)
    tasks[1].cancel()
    await handed_over()
    gate.opened.set()
    await tasks[2]
    assert names(path) == {"w0", "w1"}


async def test_close_commits_what_waits_and_refuses_the_rest(store: Store, path: Path) -> None:
    gate, tasks = await behind_a_gate(store, 3)
    gate.opened.set()
    store.close()
    store.close()
    await asyncio.gather(*tasks)
    assert names(path) == {"w0", "w1", "w2"}
    for refused in (store.write, store.read):
        with pytest.raises(UnavailableError, match="closed"):
            await refused(put("late"))


async def test_every_commit_reaches_the_disk(store: Store) -> None:
    """A kill cannot show this: the writer's setting is what a power loss would meet."""

    def pragmas(connection: Connection) -> tuple[object, object]:
        return (
            connection.execute(text("PRAGMA synchronous")).scalar(),
            connection.execute(text("PRAGMA journal_mode")).scalar(),
        )

    full = 2
    assert await store.write(pragmas) == (full, "wal")


async def test_what_a_savepoint_keeps_is_in_no_file(store: Store) -> None:
    """SQLite's default is a file in /var/tmp, from 64 KiB on."""
    await store.write(put_many)

    def open_files(connection: Connection) -> list[Path]:
        put_many(connection)
        return [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]

    assert not [file for file in await store.write(open_files) if "etilqs" in file.name]


async def test_a_store_opens_again_with_what_was_written(path: Path) -> None:
    first = Store.open(path)
    await first.write(put("a"))
    first.close()
    second = Store.open(str(path))
    await second.write(put("b"))
    second.close()
    assert names(path) == {"a", "b"}


def test_the_file_is_the_owners_alone(store: Store, path: Path) -> None:
    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"server.db", "server.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_the_migrations_build_the_schema(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    assert await store.read(differences) == []


async def test_a_database_of_the_first_schema_keeps_its_issues(path: Path) -> None:
    engine = open_engine(locate(path), connections=1, read_only=False)
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "r0001")
        connection.execute(text(f"INSERT INTO issued VALUES ({OLD})"))  # noqa: S608 - ours
    engine.dispose()
    store = Store.open(path)
    kept = await IssuedTable(store).unexpired(datetime(2030, 1, 1, tzinfo=UTC), holders=[b"holder"])
    store.close()
    assert [one.serial for one in kept] == [7]


def test_a_crash_before_the_first_migration_leaves_a_store_that_opens(path: Path) -> None:
    path.touch()
    Store.open(path).close()


def refused(path: Path | str) -> StateError:
    before = Path(path).read_bytes()
    with pytest.raises(StateError) as caught:
        Store.open(path)
    assert Path(path).read_bytes() == before
    assert str(path) in str(caught.value)
    return caught.value


def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"this was a database once" * 400)
    error = refused(path)
    assert isinstance(error, DamagedError)
    assert "restore the last backup" in error.hint


def overwrite_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)


def overwrite_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096] + b"\xff" * 4096)


async def test_a_damaged_page_is_found_at_start(path: Path) -> None:
    store = Store.open(path)
    for number in range(200):
        await store.write(put(f"{number:0200}"))
    store.close()
    overwrite_the_middle(path)
    assert isinstance(refused(path), DamagedError)


async def test_a_damaged_page_that_no_start_reads_is_found_at_start(path: Path) -> None:
    store = Store.open(path)
    for number in range(200):
        await store.write(put(f"{number:0200}"))
    store.close()
    overwrite_the_end(path)  # the newest rows
    assert isinstance(refused(path), DamagedError)


def test_a_file_cut_short_is_refused(path: Path) -> None:
    Store.open(path).close()
    path.write_bytes(path.read_bytes()[:-8192])
    assert isinstance(refused(path), DamagedError)


def test_a_file_system_without_a_write_ahead_log_is_refused() -> None:
    engine = create_engine("sqlite://")  # in memory there is none either
    with engine.connect() as connection, pytest.raises(StateError, match="write-ahead log"):
        check(connection, "here")
    engine.dispose()


def test_a_newer_schema_is_refused(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'r9999'")
    connection.close()
    error = refused(path)
    assert "r9999" in str(error)
    assert "the version that wrote it" in error.hint


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    assert "another program" in str(refused(path))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no such file or directory"):
        Store.open(tmp_path / "nowhere" / "server.db")


@pytest.mark.parametrize("url", ["postgresql://root:secret@db/anchorline", "sqlite://", "x://"])
def test_an_unsupported_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StateError) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_a_url_of_a_file_is_that_file(path: Path) -> None:
    Store.open(f"sqlite:///{path}").close()
    assert path.exists()
