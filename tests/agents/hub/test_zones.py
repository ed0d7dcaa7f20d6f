"""How a hub holds its link to a zone server, without sockets: when it dials, and how often."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.hub.app import Hub
from agents.hub.config import Config
from agents.runtime.address import HostPort
from agents.runtime.backoff import STEADY
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.deployment import Deployment
from tests.support.logs import logged

ADDRESS = HostPort("zone.example", 14173)


class Link(FakeChannel):
    """A link to it; something is under way on it while it is not idle."""

    def __init__(self, link_class: LinkClass) -> None:
        super().__init__(link_class=link_class)
        self.idle = asyncio.Event()
        self.idle.set()

    async def drain(self, within: float = 10.0) -> None:
        await self.idle.wait()


class Zone:
    """What is to become of each time that it is dialled, and each time that it was."""

    def __init__(self, hub: Hub, clock: FakeClock, site: Deployment) -> None:
        self.hub, self.clock, self.site = hub, clock, site
        self.at: list[float] = []
        self.refusals: list[UnavailableError] = []
        self.classes: list[LinkClass] = []
        self.links: list[Link] = []

    async def dial(self, address: HostPort) -> Channel:
        assert address == ADDRESS
        self.at.append(self.clock.monotonic())
        if self.refusals:
            raise self.refusals.pop(0)
        link = Link(self.classes.pop(0) if self.classes else LinkClass.MEMBER)
        self.links.append(link)
        return link.channel

    async def pause(self) -> float:
        """The seconds until it is dialled again, which pass."""
        await settle()
        times, before = len(self.at), self.clock.monotonic()
        while len(self.at) == times:
            due = self.clock.due_network
            assert due is not None
            await self.clock.advance_network(due - self.clock.monotonic())
        return self.at[times] - before


@asynccontextmanager
async def kept(
    folder: Path, *refusals: UnavailableError, certified: bool = True
) -> AsyncIterator[Zone]:
    """A hub that holds a link to one zone server, which refuses so often at first."""
    site, clock = Deployment(), FakeClock()
    member = site.member(Role.HUB, clock=clock)
    if certified:
        site.certify(member.keyring, Kind.HUB_TLS)
    config = Config(server=HostPort("server.example", 1), zone_servers=[ADDRESS], state=folder)
    hub = Hub(config, clock, member.keyring, member.trust)
    zone = Zone(hub, clock, site)
    zone.refusals.extend(refusals)
    hub._dial_zone = zone.dial  # type: ignore[method-assign]  # what it does has tests of its own
    keeping = asyncio.ensure_future(hub._keep_zone(ADDRESS))
    await settle()
    try:
        yield zone
        assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await hub.tasks.close()


def gone(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("nobody listens there", retry_after)


async def test_one_that_is_not_there_is_dialled_again_later_and_later(tmp_path: Path) -> None:
    with logged() as lines:
        async with kept(tmp_path, *[gone() for _ in range(12)]) as zone:
            pauses = [await zone.pause() for _ in range(12)]
    assert 0.25 <= pauses[0] <= 0.5
    assert 0.5 <= pauses[1] <= 1
    assert all(15 <= pause <= 30 for pause in pauses[7:])
    said = [line for line in lines if line["event"] == "zone.unavailable"]
    assert len(said) == 1
    assert (said[0]["remote"], said[0]["reason"]) == (str(ADDRESS), "nobody listens there")


async def test_one_that_says_when_is_not_dialled_before(tmp_path: Path) -> None:
    async with kept(tmp_path, gone(retry_after=100)) as zone:
        assert 100.25 <= await zone.pause() <= 100.5


async def test_after_a_member_link_it_is_dialled_soon_again(tmp_path: Path) -> None:
    async with kept(tmp_path, *[gone() for _ in range(8)]) as zone:
        for _ in range(8):
            await zone.pause()
        zone.refusals.append(gone())
        zone.links[0].lose()
        assert await zone.pause() <= 0.5


async def test_after_another_link_it_is_not(tmp_path: Path) -> None:
    """One that is only ever asked for its ledger, and then refuses, is not well yet."""
    async with kept(tmp_path, *[gone() for _ in range(8)]) as zone:
        zone.classes.append(LinkClass.DISCOVERY)
        for _ in range(8):
            await zone.pause()
        zone.refusals.append(gone())
        zone.links[0].lose(CloseCode.NORMAL)
        await zone.pause()
        assert await zone.pause() >= 15


async def test_what_follows_upon_a_link_that_was_for_one_thing_is_dialled_with_a_pause(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path, gone()) as zone:
        zone.classes.extend([LinkClass.DISCOVERY, LinkClass.ENROLMENT])
        await zone.pause()
        zone.links[0].lose(CloseCode.NORMAL)
        assert await zone.pause() == pytest.approx(0.1)
        zone.links[1].lose(CloseCode.NORMAL)
        assert await zone.pause() == pytest.approx(0.1)


async def test_a_member_link_that_is_lost_is_made_again_at_once(tmp_path: Path) -> None:
    async with kept(tmp_path) as zone:
        assert len(zone.links) == 1
        zone.links[0].lose()
        await settle()
        assert len(zone.links) == 2


async def test_one_that_ends_each_member_link_is_not_dialled_in_a_loop(tmp_path: Path) -> None:
    async with kept(tmp_path) as zone:
        zone.links[0].lose()
        await settle()
        waits = []
        for _ in range(8):
            zone.links[-1].lose()
            waits.append(await zone.pause())
        assert 0.25 <= waits[0] <= 0.5
        assert 2.5 <= waits[-1] <= 5.0
        await zone.clock.advance_network(STEADY)
        stood = len(zone.links)
        zone.links[-1].lose()
        await settle()
        assert len(zone.links) == stood + 1


async def test_why_it_is_not_there_is_said_again_when_it_has_been(tmp_path: Path) -> None:
    with logged() as lines:
        async with kept(tmp_path, gone()) as zone:
            await zone.pause()
            zone.refusals.append(gone())
            zone.links[0].lose()
            await zone.pause()
    assert [line["event"] for line in lines].count("zone.unavailable") == 2


@pytest.mark.req("B9")
async def test_the_old_link_goes_once_the_new_one_stands_and_nothing_is_under_way(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as zone:
        zone.links[0].idle.clear()
        zone.site.rotate()
        zone.refusals.append(gone())
        zone.site.teach(zone.hub.member.trust)
        await settle()
        assert (len(zone.at), len(zone.links)) == (2, 1)
        assert zone.links[0].is_open
        await zone.pause()
        await settle()
        assert len(zone.links) == 2
        assert zone.links[0].is_open
        zone.links[0].idle.set()
        await settle()
        assert zone.links[0].code is CloseCode.SUPERSEDED
        assert zone.links[1].is_open


async def test_a_new_certificate_has_the_link_made_again(tmp_path: Path) -> None:
    async with kept(tmp_path) as zone:
        zone.site.certify(zone.hub.member.keyring, Kind.HUB_TLS)
        zone.hub.member.credential_changed()
        await settle()
        assert [link.code for link in zone.links] == [CloseCode.SUPERSEDED, None]


async def test_what_changes_while_it_is_dialled_has_the_link_made_again(tmp_path: Path) -> None:
    async with kept(tmp_path, gone()) as zone:
        dial = zone.hub._dial_zone

        async def changing(address: HostPort) -> Channel:
            channel = await dial(address)
            if len(zone.links) == 1:
                zone.site.rotate()
                zone.site.teach(zone.hub.member.trust)
            return channel

        zone.hub._dial_zone = changing  # type: ignore[method-assign]  # as above
        await zone.pause()
        await settle()
        assert [link.code for link in zone.links] == [CloseCode.SUPERSEDED, None]


async def test_nobody_is_dialled_before_there_is_a_certificate_to_show(tmp_path: Path) -> None:
    async with kept(tmp_path, certified=False) as zone:
        await zone.clock.advance_network(600)
        assert zone.at == []
        zone.site.certify(zone.hub.member.keyring, Kind.HUB_TLS)
        zone.hub.member.credential_changed()
        await settle()
        assert len(zone.links) == 1
