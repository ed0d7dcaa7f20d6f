"""Clocks that jump under real daemons: a year back, ten years forward, and right again.

It is named, with both sides' dates and what to do; it is survived, at work and through a start;
what the daemon had it has; and when the clock is right it goes on as if nothing had been.
"""

from datetime import timedelta

import pytest

from tests.crash.frail import set_clock
from tests.crash.test_processes import until
from tests.crash.whole import Whole, issued_by, ledger_of, serial_of, whole
from tests.support.daemons import Daemon, Line, Site
from tests.support.thief import keyring_of

pytestmark = [pytest.mark.sockets, pytest.mark.req("C8", "E7")]

longer = pytest.mark.needs("fuzz")

JUMPS = (timedelta(days=-365), timedelta(days=3652))


def names_the_clock(line: Line) -> bool:
    """Whether a line says what our clock says, and that clocks are to be set."""
    said = f"{line.get('reason')} {line.get('got')}"
    to_do = f"{line.get('remedy')} {line.get('hint')}"
    return "our clock says" in said and "clock" in to_do


def wait_named(daemon: Daemon, after: int = 0) -> None:
    daemon.output.wait(names_the_clock, after, f"of {daemon.name} that names the clock")


def rotate_and_follow(everybody: Whole, daemon: Daemon, after: int) -> None:
    """A new root is made, and a daemon is under it soon."""
    root = everybody.site.api.post("roots", confirmed=True)["root"]["fingerprint"]
    daemon.wait("key.activated", after=after, root=root)


@pytest.mark.parametrize(
    "name",
    ["zone", "inside", *(pytest.param(name, marks=longer) for name in ("hub", "outside"))],
)
def test_a_clock_that_jumps_and_is_set_right(frail_site: Site, name: str) -> None:
    everybody = whole(frail_site)
    daemon, server, zone = getattr(everybody, name), everybody.server, everybody.zone
    for wrong in JUMPS:
        id, ledger = keyring_of(daemon).id, ledger_of(daemon)
        held = keyring_of(daemon).credentials
        serials = issued_by(zone)
        assert serial_of(everybody.outside) in serials

        mark = daemon.mark
        set_clock(daemon, wrong)
        wait_named(daemon, mark)
        assert daemon.running

        # Killed and started with the wrong clock: everything is there.
        daemon.kill()
        daemon.start()
        wait_named(daemon)
        assert daemon.running
        assert keyring_of(daemon).id == id
        assert {one.kind for one in keyring_of(daemon).credentials} == {one.kind for one in held}
        assert ledger_of(daemon).begins_with(ledger)
        assert serials <= issued_by(zone)

        # Right again, it follows and serves.
        mark = daemon.mark
        set_clock(daemon, timedelta())
        rotate_and_follow(everybody, daemon, mark)
        assert keyring_of(daemon).id == id
        assert server.lines("client.cloned") == []
        if name == "zone":
            number = JUMPS.index(wrong)
            newcomer = everybody.newcomer(f"newcomer-{number}", 20 + number).launch()
            zone.wait("client.registered", host=newcomer.name)
            assert serial_of(newcomer) in issued_by(zone)
            assert serials <= issued_by(zone)
        assert daemon.running


@pytest.mark.parametrize(
    "wrong",
    [pytest.param(JUMPS[0], marks=longer, id="back"), pytest.param(JUMPS[1], id="forward")],
)
def test_a_servers_clock_that_jumps_and_is_set_right(frail_site: Site, wrong: timedelta) -> None:
    everybody = whole(frail_site)
    server, inside, api = everybody.server, everybody.inside, frail_site.api
    approvals = api.get("approvals")
    hub = next(row for row in approvals if row["role"] == "hub")
    ledger, clients = ledger_of(server), {row["id"] for row in api.get("clients")}

    set_clock(server, wrong)
    mark = inside.mark
    server.kill()
    server.start()
    if wrong < timedelta():  # no certificate of its own has begun, so it lets nobody in
        said = server.wait("key.renewal_failed", kind="server-tls")
        assert ", not at " in said["reason"]
        assert "set the clock" in said["hint"]
    else:  # it has made itself new ones, which everybody sees
        inside.output.wait(names_the_clock, mark, "of a client that names the clock")
    assert ledger_of(server).begins_with(ledger)
    # A decision is in force whatever the clock says of the keys that it is about.
    api.post("approvals", hub["fingerprint"], "revoke", reason="test")
    until(lambda: bool(server.status()["denied"]))
    denied = server.status()["denied"]

    mark = inside.mark
    set_clock(server, timedelta())
    rotate_and_follow(everybody, inside, mark)
    assert ledger_of(server).begins_with(ledger)
    assert clients <= {row["id"] for row in api.get("clients")}
    until(lambda: inside.status()["denied"] == denied == server.status()["denied"])
