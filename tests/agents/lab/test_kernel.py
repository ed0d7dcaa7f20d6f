import os
import socket
from pathlib import Path

import pytest

from agents.lab.kernel import read_tables

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid ...\n"
ESTABLISHED, TIME_WAIT, LISTEN = "01", "06", "0A"


class Proc:
    """A folder that looks like /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[str] = []
        (root / "net").mkdir()

    def process(self, pid: int, *inodes: int) -> None:
        folder = self.root / str(pid) / "fd"
        folder.mkdir(parents=True)
        (folder / "0").symlink_to("/dev/null")
        for number, inode in enumerate(inodes, start=1):
            (folder / str(number)).symlink_to(f"socket:[{inode}]")

    def row(self, local: str, remote: str, state: str, inode: int) -> None:
        self.rows.append(f"   0: {local} {remote} {state} 0:0 0:0 0 0 0 {inode} 1 0 0\n")
        (self.root / "net" / "tcp").write_text(HEAD + "".join(self.rows))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


# 127.0.1.11:14172 and 127.0.1.12:40000
LEFT, RIGHT = "0B01007F:375C", "0C01007F:9C40"


def test_two_ends_of_a_connection_are_a_pair_of_processes(proc: Proc) -> None:
    proc.process(100, 1)
    proc.process(200, 2)
    proc.row(LEFT, RIGHT, ESTABLISHED, 1)
    proc.row(RIGHT, LEFT, ESTABLISHED, 2)
    tables = read_tables([100, 200], proc=proc.root)
    assert tables.pairs([100, 200]) == {frozenset({100, 200})}
    assert tables.of(100)[0].local == ("127.0.1.11", 14172)
    assert tables.of(100)[0].remote == ("127.0.1.12", 40000)
    assert tables.of(100)[0].peer == 200


def test_a_connection_to_somebody_else_is_no_pair(proc: Proc) -> None:
    proc.process(100, 1)
    proc.process(200)
    proc.row(LEFT, RIGHT, ESTABLISHED, 1)
    proc.row(RIGHT, LEFT, ESTABLISHED, 2)
    tables = read_tables([100, 200], proc=proc.root)
    assert tables.pairs([100, 200]) == frozenset()
    assert tables.of(100)[0].peer is None


def test_a_connection_that_has_ended_is_none(proc: Proc) -> None:
    proc.process(100, 1)
    proc.process(200, 2)
    proc.row(LEFT, RIGHT, TIME_WAIT, 1)
    proc.row(RIGHT, LEFT, TIME_WAIT, 2)
    assert read_tables([100, 200], proc=proc.root).connections == ()


def test_what_was_accepted_was_not_dialled(proc: Proc) -> None:
    proc.process(100, 1, 2, 3)
    proc.row(LEFT, "00000000:0000", LISTEN, 1)
    proc.row(LEFT, RIGHT, ESTABLISHED, 2)
    proc.row("0B01007F:9C41", "0101007F:375C", ESTABLISHED, 3)
    tables = read_tables([100], proc=proc.root)
    assert tables.listening == {(100, ("127.0.1.11", 14172))}
    assert tables.dialled(100) == {("127.0.1.1", 14172)}


def test_a_process_that_is_gone_has_no_connections(proc: Proc) -> None:
    proc.row(LEFT, RIGHT, ESTABLISHED, 1)
    assert read_tables([100], proc=proc.root).connections == ()


@pytest.mark.sockets
def test_the_tables_of_this_machine() -> None:
    with socket.create_server(("127.0.7.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), listener.accept()[0]:
            tables = read_tables([os.getpid()])
            assert (os.getpid(), address) in tables.listening
            assert address in tables.dialled(os.getpid())
            assert tables.pairs([os.getpid()]) == {frozenset({os.getpid()})}
        assert address not in read_tables([os.getpid()]).dialled(os.getpid())
