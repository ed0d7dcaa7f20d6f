import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.runtime.notify import Notifier

pytestmark = pytest.mark.sockets


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def test_each_message(supervisor: socket.socket) -> None:
    notifier = Notifier(supervisor.getsockname())
    notifier.ready("3 links")
    notifier.reloading(12.5)
    notifier.ready()
    notifier.status("two\nlines\0READY=1")
    notifier.watchdog()
    notifier.stopping()
    assert [supervisor.recv(1000) for _ in range(6)] == [
        b"READY=1\nSTATUS=3 links",
        b"RELOADING=1\nMONOTONIC_USEC=12500000",
        b"READY=1",
        b"STATUS=two lines\0READY=1",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_an_abstract_socket() -> None:
    name = f"anchorline-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        Notifier(f"@{name}").ready()
        assert sock.recv(1000) == b"READY=1"


def test_a_supervisor_that_has_gone_is_no_error(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone")).ready()
    Notifier(None).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/x"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}, 15.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
    ],
)
def test_signs_of_life_come_twice_as_often_as_asked(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier.from_environment(environ, pid=7).interval == interval
