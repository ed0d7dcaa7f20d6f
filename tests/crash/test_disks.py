"""Real disks that are full or read-only, under real processes: named, survived, nothing lost.

Each is a small tmpfs of its own. In `make test-deep`, for a mount needs privileges.
"""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agents.runtime.errors import AgentError
from tests.crash.test_processes import ledger_of, until
from tests.support.daemons import Site

pytestmark = [pytest.mark.sockets, pytest.mark.needs("mount"), pytest.mark.req("C8")]

SIZE = 8 * 1024 * 1024


class Disk:
    """A tmpfs at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"size={SIZE},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def drain(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink()

    def remount(self, mode: str) -> None:
        """Read-only ("ro") or not ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.fixture
def disk(site: Site) -> Iterator[Disk]:
    """The disk of the server's state."""
    made = Disk(site.server.state)
    yield made
    made.close()


def test_a_full_disk(site: Site, disk: Disk) -> None:
    server = site.start_server()
    client = site.add_client("client", 11).launch()
    client.wait("key.activated")
    site.api.post("roots", confirmed=True)
    before = ledger_of(server)
    disk.fill()
    for _ in range(3):
        with pytest.raises(AgentError, match=r"space|full"):
            site.api.post("roots", confirmed=True)
    assert ledger_of(server) == before
    assert server.running
    # A newcomer is told to come again; nothing is issued that is not on record.
    newcomer = site.add_client("newcomer", 12).launch()
    server.wait("enrolment.refused")
    assert newcomer.running
    disk.drain()
    newcomer.wait("key.activated")
    site.api.post("roots", confirmed=True)
    assert ledger_of(server).last.n == before.last.n + 1
    server.restart()
    assert ledger_of(server).last.n == before.last.n + 1
    assert site.api.get("status")["can_sign"]


def test_a_full_disk_under_a_server_that_is_killed_and_started(site: Site, disk: Disk) -> None:
    server = site.start_server()
    site.api.post("roots", confirmed=True)
    before = ledger_of(server)
    disk.fill()
    server.kill()
    server.start()  # what there is can be read, and nothing has to be written
    assert site.api.get("status")["can_sign"]
    with pytest.raises(AgentError, match=r"space|full"):
        site.api.post("roots", confirmed=True)
    disk.drain()
    site.api.post("roots", confirmed=True)
    after = ledger_of(server)
    assert after.begins_with(before)
    assert after.last.n == before.last.n + 1


def test_a_read_only_disk(site: Site, disk: Disk) -> None:
    server = site.start_server()
    before = ledger_of(server)
    server.kill()
    disk.remount("ro")
    server.launch()
    assert server.process is not None
    assert server.process.wait() != 0
    said = server.output.all().lower()
    assert "read-only" in said
    assert "traceback" not in said
    disk.remount("rw")
    server.start()
    assert ledger_of(server) == before
    until(lambda: bool(site.api.get("status")["can_sign"]))


def test_a_full_disk_of_a_client(site: Site) -> None:
    server = site.start_server()
    client = site.add_client("client", 11)
    disk = Disk(client.state)
    try:
        client.launch()
        client.wait("key.activated")
        server.wait("client.registered", host="client")
        (row,) = site.api.get("clients")
        disk.fill()
        mark = client.mark
        root = site.api.post("roots", confirmed=True)["root"]["fingerprint"]
        client.output.wait(
            lambda line: "no space" in str(line.get("reason")), mark, "that names the disk"
        )
        assert client.running
        disk.drain()
        client.wait("key.activated", root=root)
        (again,) = site.api.get("clients")
        assert again["id"] == row["id"]
    finally:
        if client.running:
            client.kill()
        disk.close()
