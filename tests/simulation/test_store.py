"""The simulated database has whole groups: those whose commit was made, and no others."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection

from agents.runtime.errors import StateError
from tests.simulation.chance import drawn
from tests.simulation.disk import Killed, Strike
from tests.simulation.loop import SimLoop
from tests.simulation.store import Database, SimStore
from tests.support.files import Failure

MOMENT = 0.01
"""Seconds at the most between a write and its commit, and between that and the word of it."""


class Machine:
    """What outlives programs, and the program that runs on it."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.database = Database(drawn(1, "store"))
        self.alive = True
        self.store = SimStore(self.database, alive=lambda: self.alive, kill=self.kill)
        self.run(self.store.write(_make))

    def kill(self, _how: str = "") -> None:
        self.alive = False

    def run(self, work: Any) -> Any:  # noqa: ANN401
        return self.loop.run_until_complete(work)

    @property
    def kept(self) -> list[int]:
        """What the next program reads."""
        again = SimStore(self.database, alive=lambda: True, kill=self.kill)
        return list(self.run(again.read(_rows)))

    async def ends(self, when: Callable[[], bool]) -> list[object]:
        """Write two at once, and be killed; returns what those who wrote were told."""
        asked = [asyncio.ensure_future(self.store.write(_adding(n))) for n in (1, 2)]
        await asyncio.sleep(0)  # it is asked, and waits for its turn
        for _ in range(1000):
            if when():
                break
            await asyncio.sleep(MOMENT / 100)
        self.kill()
        await asyncio.sleep(100 * MOMENT)
        told: list[object] = []
        for one in asked:
            told += [one.exception() or one.result()] if one.done() else []
            one.cancel()
        return told

    def has_written(self) -> bool:
        return self.database._connection.execute("SELECT n FROM test").fetchone() is not None


def _make(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE test (n INTEGER)")


def _adding(n: int) -> Callable[[Connection], int]:
    def add(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO test VALUES (?)", (n,))
        return n

    return add


def _rows(connection: Connection) -> list[int]:
    return [int(row[0]) for row in connection.exec_driver_sql("SELECT n FROM test ORDER BY n")]


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.database.close()
    made.loop.close()


def test_what_was_told_is_there(machine: Machine) -> None:
    assert machine.run(machine.store.write(_adding(1))) == 1
    machine.kill()
    with pytest.raises(Killed):
        machine.run(machine.store.write(_adding(2)))
    assert machine.kept == [1]


def test_a_kill_before_the_commit_leaves_nothing_of_its_group(machine: Machine) -> None:
    assert machine.run(machine.ends(lambda: True)) == []
    assert machine.kept == []


def test_a_kill_after_the_commit_leaves_all_of_it_and_nobody_is_told(machine: Machine) -> None:
    assert machine.run(machine.ends(machine.has_written)) == []
    assert machine.kept == [1, 2]


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.TORN, Failure.AFTER])
def test_a_commit_under_way_is_there_or_not(machine: Machine, failure: Failure) -> None:
    machine.database.strike = Strike(failure, kill=True)
    assert machine.run(machine.ends(lambda: not machine.alive)) == []
    assert machine.kept == ([1, 2] if failure is Failure.AFTER else [])


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.AFTER])
def test_who_is_told_of_a_failure_cannot_know(machine: Machine, failure: Failure) -> None:
    machine.database.strike = Strike(failure, kill=False)
    with pytest.raises(StateError):
        machine.run(machine.store.write(_adding(1)))
    assert machine.run(machine.store.write(_adding(2))) == 2
    assert machine.kept == ([1, 2] if failure is Failure.AFTER else [2])
