"""What a client remembers of its last registration."""

from pathlib import Path

import pytest

from agents.client.memory import Memory, Registration
from agents.runtime.errors import StateError
from tests.support.files import Crash, Failure, MemoryFiles

PATH = Path("/state/registration.json")
ONE = Registration(responder="aa", token="01", settings={"a": "1"})
TWO = Registration(responder="aa", token="02", settings={"a": "1"})


def test_nothing_before_the_first() -> None:
    assert Memory(PATH, MemoryFiles()).last == Registration()


def test_the_next_start_remembers() -> None:
    files = MemoryFiles()
    Memory(PATH, files).keep(ONE)
    assert Memory(PATH, files).last == ONE


def test_the_token_is_for_the_owner_alone() -> None:
    files = MemoryFiles()
    Memory(PATH, files).keep(ONE)
    assert files.modes == {PATH: 0o600}


def test_the_same_again_is_not_written() -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    memory.keep(ONE)
    memory.keep(ONE)
    assert files.changes == 1


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER])
def test_a_crash_leaves_this_one_or_the_one_before(failure: Failure) -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    memory.keep(ONE)
    files.fail(1, failure, crash=True)
    with pytest.raises(Crash):
        memory.keep(TWO)
    assert Memory(PATH, files).last == (TWO if failure is Failure.AFTER else ONE)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"token":1}', b"\xff"])
def test_a_damaged_file_is_named_with_a_way_out(data: bytes) -> None:
    files = MemoryFiles()
    files.content[PATH] = data
    with pytest.raises(StateError, match="damaged") as caught:
        Memory(PATH, files)
    assert "remove it" in caught.value.hint
