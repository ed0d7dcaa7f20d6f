import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.lab.layout import Place

pytestmark = pytest.mark.sockets

PROGRAM = """
import asyncio, os, signal, socket, sys
from pathlib import Path
from agents.lab.layout import Place
from agents.lab.processes import Forked, Nursery, Separate

def run(role, config, page, sock):
    end = socket.socket(fileno=sock)
    assert os.fstat(page).st_size == 5
    end.send(role.encode())
    print("hello from", role, flush=True)
    if role == "quick":
        return 7
    if role == "broken":
        raise RuntimeError("a fault")
    signal.pause()
    return 0

def warm():
    pass

async def main(nursery, folder, *roles):
    spawner = Forked(nursery)
    page = os.memfd_create("page")
    os.write(page, b"12345")
    for role in roles:
        place = Place(role, role, folder / role, folder / f"{role}.log", "127.0.1.11", 1)
        place.folder.mkdir()
        ours, theirs = socket.socketpair()
        process = await spawner.start(place, page, theirs)
        theirs.close()
        print(role, process.pid, process.running, flush=True)
        assert (await asyncio.to_thread(ours.recv, 100)).decode() == role
        if role == "slow":
            process.signal(signal.SIGTERM)
        if role == "stays":
            print("waiting", flush=True)
            await asyncio.sleep(3600)
        print(role, "ended", await process.ended, flush=True)
    await spawner.close()

if __name__ == "__main__":
    nursery = Nursery(run, warm)
    asyncio.run(main(nursery, Path(sys.argv[1]), *sys.argv[2:]))
    nursery.close()
"""


def start(folder: Path, *roles: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *roles], stdout=subprocess.PIPE, text=True
    )


def test_children_get_page_and_socket_and_their_ends_are_told(tmp_path: Path) -> None:
    with start(tmp_path, "quick", "slow", "broken") as lab:
        out, _ = lab.communicate()
    lines = out.splitlines()
    assert lab.returncode == 0
    assert "quick ended 7" in lines
    assert f"slow ended {-signal.SIGTERM}" in lines
    assert "broken ended 1" in lines
    assert (tmp_path / "quick" / "output").read_text() == "hello from quick\n"
    assert "RuntimeError: a fault" in (tmp_path / "broken" / "output").read_text()


def test_when_the_lab_is_gone_its_components_are_killed(tmp_path: Path) -> None:
    with start(tmp_path, "stays") as lab:
        assert lab.stdout is not None
        name, pid, running = lab.stdout.readline().split()
        assert (name, running) == ("stays", "True")
        assert lab.stdout.readline() == "waiting\n"
        child = os.pidfd_open(int(pid))
        try:
            lab.kill()
            lab.wait()
            # A descriptor of a process is readable when it has ended.
            import select

            assert select.select([child], [], [], 30)[0] == [child]
        finally:
            os.close(child)


async def test_separate_interpreters_report_their_end(tmp_path: Path) -> None:
    from agents.lab.processes import Separate

    spawner = Separate()
    place = Place("x", "client", tmp_path / "x", tmp_path / "x.log", "127.0.1.11", 1)
    place.folder.mkdir()
    ours, theirs = socket.socketpair()
    page = os.memfd_create("page")
    try:
        process = await spawner.start(place, page, theirs)  # there is no configuration
        assert await process.ended == 2
        assert "does not exist" in (place.folder / "output").read_text()
        assert not process.running
        process.signal(signal.SIGTERM)
        await spawner.close()
    finally:
        os.close(page)
        ours.close()
        theirs.close()
    await asyncio.sleep(0)
