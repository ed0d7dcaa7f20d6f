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

ERRORS = {errno.ENOSPC: "full", errno.EROFS: "read-only", errno.EIO: "broken"}
SOME = {("inside", "full"), ("hub", "read-only"), ("zone", "full"), ("zone", "broken")}
"""Those that are tried each time; every other one in a deep run."""

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


def check_said(daemon: Daemon, error: int) -> None:
    """A daemon that has ended says what the disk said, and what to do."""
    said = daemon.output.all().lower()
    assert said_by(error) in said
    assert "anchorline: hint: " in said
    assert "traceback" not in said


def is_alive(daemon: Daemon) -> bool:
    return daemon.running


@pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param(
            name,
            error,
            id=f"{name}-{word}",
            marks=() if (name, word) in SOME else pytest.mark.needs("fuzz"),
        )
        for name in ("inside", "hub", "zone")
        for error, word in ERRORS.items()
    ],
)
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
    if name == "zone" and error != errno.ENOSPC:
        # What of its log is on such a disk, nobody knows any more: a start will see.
        until(lambda: not daemon.running)
        check_said(daemon, error)
    else:
        assert is_alive(daemon)
        daemon.kill()
    assert ledger_of(daemon) == before
    assert [one.chain for one in keyring_of(daemon).credentials] == [one.chain for one in held]
    assert issued_by(zone) == serials

    # At a start: what there is can be read, or the start is refused and says why.
    daemon.launch()
    until(partial(has_begun, daemon))
    if not is_alive(daemon):
        check_said(daemon, error)
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
