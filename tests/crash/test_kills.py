"""kill -9 at each step to the disk of real clients, hubs and zone servers, and in the recovery.

    enrol      from the first key to the first registration, or to the zone server's client CA
    rotate     catch-up, acknowledgement and the renewal of everything that is held
    issue      at a zone server: what it signs for clients

A probe counts the steps of an undisturbed run. Then the same happens again, and ends at one of
them; so does the start after that. The next one recovers: it is who it was, its ledger has
only grown, and whatever certificate a client holds is on the record of whoever signed it.
"""

import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.crash.frail import doom, steps
from tests.crash.test_processes import until
from tests.crash.whole import Whole, issued_by, ledger_of, serial_of, whole
from tests.support.daemons import Daemon, Site
from tests.support.thief import keyring_of

pytestmark = [pytest.mark.sockets, pytest.mark.req("C8")]

places = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.needs("fuzz"))], ids=["some", "all"]
)


def killed(daemon: Daemon) -> None:
    """Wait until it has come to the step at which it dies."""
    assert daemon.process is not None
    assert daemon.process.wait() == -signal.SIGKILL


def counted(daemon: Daemon, act: Callable[[], object]) -> int:
    """How many steps something takes that does not fail."""
    before = steps(daemon)
    act()
    return steps(daemon) - before


def has_begun(daemon: Daemon) -> bool:
    """Whether it is ready, or dead."""
    return not daemon.running or bool(daemon.lines("daemon.started"))


def starts_and_dies(daemon: Daemon, step: int) -> None:
    """A recovery that does not come to its end; or does, before that step."""
    doom(daemon, step)
    daemon.launch()
    until(partial(has_begun, daemon))
    if daemon.running:
        daemon.kill()
    (daemon.folder / "doom").unlink(missing_ok=True)


def blows(count: int, *, every: bool) -> Iterator[tuple[int, int]]:
    """Where to die, and where to die in the recovery from it: another place each time."""
    assert count > 3
    for place in range(1, count + 1, 1 if every else -(-count // 3)):
        yield place, 1 + place * 5 % 7


def has(daemon: Daemon, root: str) -> bool:
    """Whether all that a daemon holds is under this root."""
    held = keyring_of(daemon).credentials
    return bool(held) and {one.root.hex() for one in held} == {root}


def identity(daemon: Daemon) -> bytes | None:
    """The id that lies on its disk, if there is one yet."""
    return keyring_of(daemon).id if (daemon.state / "keys.db").exists() else None


@places
def test_a_client_enrols(frail_site: Site, every: bool) -> None:
    server = frail_site.start_server()

    def enrols(client: Daemon) -> None:
        client.launch()
        server.wait("client.registered", host=client.name)
        until((client.state / "registration.json").exists)

    probe = frail_site.add_client("probe", 10)
    count = counted(probe, lambda: enrols(probe))
    known: dict[str, str] = {}
    for number, (first, second) in enumerate(blows(count, every=every)):
        client = frail_site.add_client(f"client-{number}", 20 + number)
        doom(client, first)
        client.launch()
        killed(client)
        starts_and_dies(client, second)
        id = identity(client)
        enrols(client)
        assert id in (None, keyring_of(client).id)
        known[client.name] = keyring_of(client).id.hex()
    assert server.lines("client.cloned") == []
    rows = {row["host"]: row["id"] for row in frail_site.api.get("clients")}
    assert known.items() <= rows.items()


def approve_whoever_asks(site: Site) -> None:
    for row in site.api.get("approvals"):
        if row["state"] == "pending":
            site.api.post("approvals", row["fingerprint"], "approve", reason="test")


@places
def test_a_zone_server_enrols(frail_site: Site, every: bool) -> None:
    frail_site.start_server()
    frail_site.add_hub("hub", f"{frail_site.address(2)}:{frail_site.port + 1}").launch()
    frail_site.approve("hub")

    def enrolled(zone: Daemon) -> bool:
        approve_whoever_asks(frail_site)
        return not zone.running or len(keyring_of(zone).credentials) == 2

    def enrols(zone: Daemon) -> None:
        zone.launch()
        zone.wait("daemon.started")
        until(partial(enrolled, zone))
        assert zone.running

    probe = frail_site.add_zone("probe", 2)
    count = counted(probe, lambda: enrols(probe))
    probe.kill()
    for number, (first, second) in enumerate(blows(count, every=every)):
        zone = frail_site.add_zone(f"zone-{number}", 2)
        doom(zone, first)
        zone.launch()
        until(partial(has_begun, zone))
        if zone.running:
            until(partial(enrolled, zone))
        killed(zone)
        starts_and_dies(zone, second)
        id = identity(zone)
        enrols(zone)
        assert id in (None, keyring_of(zone).id)
        client = frail_site.add_client(
            f"client-{number}", 20 + number, servers=[str(zone.options["listen"])]
        )
        client.launch()
        zone.wait("client.registered", host=client.name)
        assert serial_of(client) in issued_by(zone)
        client.kill()
        zone.kill()


@places
@pytest.mark.req("B6", "B7")
@pytest.mark.parametrize(
    "name", ["inside", "zone", pytest.param("hub", marks=pytest.mark.needs("fuzz"))]
)
def test_a_root_is_followed(frail_site: Site, name: str, every: bool) -> None:
    everybody = whole(frail_site)
    daemon, outside = getattr(everybody, name), everybody.outside
    id = keyring_of(daemon).id
    serials = issued_by(everybody.zone)

    def rotate() -> str:
        return str(frail_site.api.post("roots", confirmed=True)["root"]["fingerprint"])

    def follow() -> None:
        root = rotate()
        until(partial(has, daemon, root))

    for first, second in blows(counted(daemon, follow), every=every):
        before = ledger_of(daemon)
        doom(daemon, first)
        root = rotate()
        killed(daemon)
        assert ledger_of(daemon).begins_with(before)
        starts_and_dies(daemon, second)
        assert ledger_of(daemon).begins_with(before)
        daemon.start()
        until(partial(has, daemon, root))
        assert keyring_of(daemon).id == id
        assert ledger_of(daemon).last.n == before.last.n + 1
        if name == "zone":  # and it goes on serving by its new client CA
            until(partial(has, outside, root))
            serials |= {serial_of(outside)}
            assert serials <= issued_by(daemon)
    assert everybody.server.lines("client.cloned") == []


@places
@pytest.mark.req("A6")
def test_a_zone_server_issues(frail_site: Site, every: bool) -> None:
    everybody: Whole = whole(frail_site)
    zone = everybody.zone

    def joins(client: Daemon) -> None:
        client.launch()
        zone.wait("client.registered", host=client.name)
        until((client.state / "registration.json").exists)

    probe = everybody.newcomer("probe", 13)
    count = counted(zone, lambda: joins(probe))
    held = {one: serial_of(one) for one in (everybody.outside, probe)}
    for number, (first, second) in enumerate(blows(count, every=every)):
        client = everybody.newcomer(f"client-{number}", 20 + number)
        doom(zone, first)
        client.launch()
        killed(zone)
        starts_and_dies(zone, second)
        issued = issued_by(zone)
        assert set(held.values()) <= issued
        zone.start()
        until((client.state / "registration.json").exists)
        held[client] = serial_of(client)
        assert set(held.values()) <= issued_by(zone)
    until(lambda: zone.status()["clients"] == len(held))
    assert zone.lines("client.cloned") == []
