"""Rows on their way into a table: all of them arrive, in few statements."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import IntegrityError, StatementError

from agents.server.store.engine import ERRORS, locate, open_engine
from agents.server.store.insertion import MOST, Insertion, replacing
from agents.server.store.schema import METADATA, setting
from agents.server.store.schema import issuer_count as counts

NOW = datetime(2030, 1, 1, 12, 0, 5, tzinfo=UTC)


def connected(connection: Connection) -> Connection:
    METADATA.create_all(connection)
    return connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = open_engine(locate(tmp_path / "server.db"), connections=1, read_only=False)
    with engine.connect() as opened:
        yield connected(opened)
    engine.dispose()


def count(number: int, signed: int = 1) -> tuple[object, ...]:
    return number.to_bytes(4), "root", signed


def held(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(select(counts).order_by(counts.c.issuer))]


def setting_at(date: datetime) -> tuple[object, ...]:
    return "name", "value", "server", "numeric", "alice", date, 1


@given(number=st.integers(0, 4 * MOST))
def test_all_rows_are_put_whatever_their_number(number: int) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connected(connection)
        rows = [count(n, signed=n) for n in range(number)]
        Insertion(counts).put(connection, rows)
        assert held(connection) == rows
    engine.dispose()


def test_many_rows_are_few_statements(connection: Connection) -> None:
    said: list[str] = []
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_trace_callback(said.append)
    Insertion(counts).put(connection, [count(n) for n in range(2 * MOST + 5)])
    assert len(said) == 4  # 32 + 32 + 4 + 1


def test_a_row_that_is_there_is_an_error(connection: Connection) -> None:
    Insertion(counts).put(connection, [count(1)])
    with pytest.raises(ERRORS) as caught:
        Insertion(counts).put(connection, [count(1)])
    assert not isinstance(caught.value, IntegrityError)
    assert "UNIQUE" in str(caught.value)


def test_a_row_is_put_instead_of_the_one_with_its_key(connection: Connection) -> None:
    Insertion(counts).put(connection, [count(1), count(2)])
    replacing(counts).put(connection, [count(2, signed=7), count(3)])
    assert held(connection) == [count(1), count(2, signed=7), count(3)]


def test_a_new_value_can_be_made_of_both(connection: Connection) -> None:
    adding = Insertion(counts, {"signed": "issuer_count.signed + excluded.signed"})
    adding.put(connection, [count(1, signed=3)])
    adding.put(connection, [count(1, signed=4), count(2)])
    assert held(connection) == [count(1, signed=7), count(2)]


def test_a_value_passes_through_the_type_of_its_column(connection: Connection) -> None:
    replacing(setting).put(connection, [setting_at(NOW + timedelta(milliseconds=5))])
    assert connection.execute(select(setting.c.changed_at)).scalar_one() == NOW


def test_a_value_that_its_column_cannot_have_is_refused_as_core_refuses_it(
    connection: Connection,
) -> None:
    with pytest.raises(StatementError, match="naive date"):
        replacing(setting).put(connection, [setting_at(NOW.replace(tzinfo=None))])
