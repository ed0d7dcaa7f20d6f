"""Real disks that are full or read-only, under real processes: named, survived, nothing lost.

Each is a small tmpfs of its own. In `make test-deep`, for a mount needs privileges.
"""

import shutil
from collections.abc import Iterator
from functools import partial

import pytest

from agents.runtime.errors import AgentError, Exit
from tests.crash.test_kills import has
from tests.crash.test_processes import until
from tests.crash.tmpfs import Disk, disk_at
from tests.crash.whole import issued_by, ledger_of, whole
from tests.support.daemons import Daemon, Line, Site
from tests.support.thief import keyring_of

pytestmark = [pytest.mark.sockets, pytest.mark.needs("mount"), pytest.mark.req("C8")]


@pytest.fixture
def disk(site: Site) -> Iterator[Disk]:
    """The disk of the server's state."""
    with disk_at(site.server.state) as made:
        yield made


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


@pytest.mark.parametrize("name", ["inside", "hub", "zone"])
def test_a_full_disk_of_a_member(frail_site: Site, name: str) -> None:
    everybody = whole(frail_site)
    daemon: Daemon = getattr(everybody, name)
    id, serials = keyring_of(daemon).id, issued_by(everybody.zone)
    daemon.kill()
    moved = daemon.state.rename(daemon.folder / "moved")
    with disk_at(daemon.state) as disk:
        without_socket = shutil.ignore_patterns("*.sock")
        shutil.copytree(moved, daemon.state, ignore=without_socket, dirs_exist_ok=True)
        daemon.start()
        daemon.wait("link.opened", link_class="member")
        before = ledger_of(daemon)
        disk.fill()
        mark = daemon.mark
        root = frail_site.api.post("roots", confirmed=True)["root"]["fingerprint"]
        daemon.output.wait(names_the_disk, mark, "that names the disk")
        assert daemon.running
        assert ledger_of(daemon) == before
        # What there is can be read, and nothing has to be written.
        daemon.kill()
        daemon.start()
        assert ledger_of(daemon) == before
        disk.drain()
        until(partial(has, daemon, root))
        assert keyring_of(daemon).id == id
        assert serials <= issued_by(everybody.zone)
        # Read-only, it is not started, and that is said.
        daemon.kill()
        disk.remount("ro")
        daemon.launch()
        assert daemon.process is not None
        assert daemon.process.wait() == Exit.REFUSED
        said = daemon.output.all()
        assert "read-only" in said.lower()
        assert "anchorline: hint: " in said
        disk.remount("rw")
        daemon.start()
        daemon.wait("link.opened", link_class="member")
        daemon.kill()


def names_the_disk(line: Line) -> bool:
    to_do = f"{line.get('hint')} {line.get('remedy')}"
    return "no space left" in str(line.get("reason")) and "free some space" in to_do
