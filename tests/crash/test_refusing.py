"""Disks that refuse every write under real clients, hubs and zone servers, at work and at a start.

It is named, with what to do; it is survived; nothing of what was kept is lost, and nothing that
is not kept was said. When the disk is sound again, it goes on.
"""

import errno
import os
from functools import partial

import pytest

from tests.crash.frail import refuse, relent
from tests.crash.test_kills import has, has_begun
from tests.crash.test_processes import until
from tests.crash.whole import issued_by, ledger_of, serial_of, whole
from tests.support.daemons import Daemon, Line, Site
from tests.support.thief import keyring_of

pytestmark = [pytest.mark.sockets, pytest.mark.req("C8")]


def said_by(error: int) -> str:
    """How our log says an errno."""
    return os.strerror(error).lower()


def names(error: int, line: Line) -> bool:
    """Whether a line says what the disk says, and what to do."""
    said = said_by(error) in f"{line.get('reason')} {line.get('got')}"
    return said and bool(line.get("hint") or line.get("remedy"))


def wait_named(daemon: Daemon, error: int, after: int = 0) -> None:
    daemon.output.wait(partial(names, error), after, f"of {daemon.name} that names it")


def is_alive(daemon: Daemon) -> bool:
    return daemon.running


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("name", ["inside", "hub", "zone"])
def test_a_disk_that_refuses(frail_site: Site, name: str, error: int) -> None:
    everybody = whole(frail_site)
    daemon: Daemon = getattr(everybody, name)
    zone, api = everybody.zone, frail_site.api
    id, before, serials = keyring_of(daemon).id, ledger_of(daemon), issued_by(zone)
    held = keyring_of(daemon).credentials

    # At work: a new root cannot be followed, and that is said.
    mark = daemon.mark
    refuse(daemon, error)
    root = api.post("roots", confirmed=True)["root"]["fingerprint"]
    wait_named(daemon, error, mark)
    newcomer = everybody.newcomer("newcomer", 20)
    if name == "zone":
        newcomer.launch()
        zone.wait("enrolment.refused", after=mark, reason=lambda text: said_by(error) in str(text))
        assert keyring_of(newcomer).credentials == ()
    assert is_alive(daemon)
    assert ledger_of(daemon) == before
    assert [one.chain for one in keyring_of(daemon).credentials] == [one.chain for one in held]
    assert issued_by(zone) == serials

    # At a start: what there is can be read, or the start is refused and says why.
    daemon.kill()
    daemon.launch()
    until(partial(has_begun, daemon))
    if not is_alive(daemon):
        said = daemon.output.all().lower()
        assert said_by(error) in said
        assert "anchorline: hint: " in said
        assert "traceback" not in said
    assert ledger_of(daemon) == before

    # Sound again: it follows, serves, and is who it was.
    relent(daemon)
    if not is_alive(daemon):
        daemon.start()
    until(partial(has, daemon, root))
    assert keyring_of(daemon).id == id
    if name == "zone":
        until(lambda: bool(keyring_of(newcomer).credentials))
        assert serials | {serial_of(newcomer)} <= issued_by(zone)
    assert everybody.server.lines("client.cloned") == []
