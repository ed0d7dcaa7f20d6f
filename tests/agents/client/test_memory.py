"""What a client remembers of its last registration."""

from pathlib import Path

import pytest

from agents.client.memory import MAX_RESPONDERS, Memory, Registration
from agents.runtime.errors import StateError
from tests.support.files import Crash, Failure, MemoryFiles

PATH = Path("/state/registration.json")
NAME = "PKIClientTLSKeyRenewalWindowHours"
ONE = Registration(responder="aa", token="01", settings={NAME: "1"})
TWO = Registration(responder="aa", token="02", settings={NAME: "1"})


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


@pytest.mark.req("F1")
def test_one_that_comes_back_to_a_responder_shows_what_it_was_given_there() -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    for responder, token in (("aa", "01"), ("bb", "02"), ("aa", "03"), ("bb", "04")):
        memory.keep(Registration(responder=responder, token=token))
    for known in (memory, Memory(PATH, files)):
        assert known.token(b"\xaa") == b"\x03"
        assert known.token(b"\xbb") == b"\x04"
        assert known.token(b"\xcc") == b""
        assert known.last == Registration(responder="bb", token="04")


def test_of_many_responders_those_used_last_are_remembered() -> None:
    memory = Memory(PATH, MemoryFiles())
    for number in (*range(MAX_RESPONDERS), 0, MAX_RESPONDERS):
        memory.keep(Registration(responder=f"{number:02x}", token=f"{number:02x}"))
    assert memory.token(b"\x00") == b"\x00"
    assert memory.token(b"\x01") == b""
    assert memory.token(bytes([MAX_RESPONDERS])) == bytes([MAX_RESPONDERS])


def test_what_is_forgotten_is_gone() -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    memory.keep(ONE)
    memory.forget()
    assert memory.token(b"\xaa") == b""
    assert Memory(PATH, files).last == Registration()


def test_no_responder_writes_what_the_next_start_does_not_read() -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    settings = {f"name-{n}": "v" * 4096 for n in range(255)} | {NAME: "9" * 4096}
    for number in range(2 * MAX_RESPONDERS):
        longest = Registration(bytes([number] * 16).hex(), bytes(64).hex(), settings)
        memory.keep(longest)
    assert Memory(PATH, files).last == Registration(bytes([number] * 16).hex(), bytes(64).hex())


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER])
def test_a_crash_leaves_this_one_or_the_one_before(failure: Failure) -> None:
    files = MemoryFiles()
    memory = Memory(PATH, files)
    memory.keep(ONE)
    files.fail(1, failure, crash=True)
    with pytest.raises(Crash):
        memory.keep(TWO)
    assert Memory(PATH, files).last == (TWO if failure is Failure.AFTER else ONE)


HALVES = b'{"tokens":{"a":"a"},"settings":{}}'
"""No hex string of its own, and one with its neighbour."""


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"tokens":1}', b"\xff", HALVES])
def test_a_damaged_file_is_named_with_a_way_out(data: bytes) -> None:
    files = MemoryFiles()
    files.content[PATH] = data
    with pytest.raises(StateError, match="damaged") as caught:
        Memory(PATH, files)
    assert "remove it" in caught.value.hint
