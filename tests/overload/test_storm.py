"""More clients at once than a server lets in: all of them get in, and none of its bounds breaks."""

import asyncio
import ipaddress
import re
from pathlib import Path

import pytest
import uvloop

from agents.runtime import logs
from agents.runtime.dialer import DialError
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Ping, Pong
from tests.overload.crowd import Crowd
from tests.support.daemons import Daemon, Site
from tests.support.kernel import sockets_of
from tests.support.links import on_uvloop

pytestmark = pytest.mark.sockets

BOUNDS = {
    "admission.connections": 90,
    "admission.per_address": 6,
    "admission.handshakes": 24,
    "admission.courtesies": 24,
    "admission.requests": 8,
    "admission.busy_retry_after": 0.1,
    "admission.full_retry_after": 0.3,
}
"""Far below the defaults, so that a small storm meets each of them."""
MOST = 90 + 24
"""Connections that may be open at once, courtesies included."""


def memory(daemon: Daemon) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def crowd_of(site: Site, bundle: bytes) -> Crowd:
    network = int(ipaddress.ip_address(site.address(0))) ^ 0x0080_0000
    logs.silence()
    return Crowd(bundle, site.address(1), site.port, network)


async def storm(site: Site, server: Daemon, crowd: Crowd, clients: int) -> int:
    """Let all of them in; returns the most connections that the server had at once."""
    watcher = crowd.member()
    # Somebody who is inside before the storm goes on being served.
    async with asyncio.timeout(540 if clients > 500 else 55):
        await crowd._enrol(watcher, clients)
        inside = await crowd.dial(watcher, clients, LinkClass.MEMBER)
        joining = [asyncio.ensure_future(crowd.join(number)) for number in range(clients)]
        most = answered = 0
        while not all(task.done() for task in joining):
            answer = await inside.request(Ping(id=answered, sender=watcher.id))
            assert answer == Pong(id=answered, call=answer.call, trace=answer.trace)
            answered += 1
            there = sockets_of(server.pid).established
            most = max(most, sum(1 for local, _ in there if local[1] == site.port))
            await asyncio.wait(joining, timeout=0.02)
        await asyncio.gather(*joining)
        inside.close()
        await inside.gone()
    return most


def check(site: Site, server: Daemon, crowd: Crowd, clients: int) -> None:
    """Everybody is there, nothing failed, and each that was turned away was told when to come."""
    assert crowd.registered == clients
    assert crowd.others == []
    hosts = {row["host"] for row in site.api.get("clients")}
    assert hosts >= {f"client-{number}" for number in range(clients)}
    assert [line for line in server.output.lines if line["level"] == "error"] == []
    assert site.api.get("status")["can_sign"]
    # A refused connection has one line.
    links = [line["link"] for line in server.lines("link.refused")]
    assert len(links) == len(set(links))


@on_uvloop
class TestStorm:
    @pytest.mark.req("E6", "A6")
    async def test_200_clients_and_bounds_that_are_far_too_low(self, site: Site) -> None:
        site.server.configure(**BOUNDS)
        bundle = await _started(site)
        before, crowd = memory(site.server), crowd_of(site, bundle)
        most = await storm(site, site.server, crowd, 200)
        await asyncio.to_thread(check, site, site.server, crowd, 200)
        assert most <= MOST
        # The bounds were met, and kept by words.
        assert crowd.told
        assert all(seconds in (0.1, 0.3, 2.0) for seconds in crowd.told)
        reasons = {line["got"] for line in site.server.lines("link.refused")}
        assert any("handshakes in flight" in reason for reason in reasons)
        assert memory(site.server) - before < 64 << 20

    @pytest.mark.req("E6")
    async def test_one_address_gets_no_more_than_its_share(self, site: Site) -> None:
        site.server.configure(**BOUNDS)
        crowd = crowd_of(site, await _started(site))
        member = crowd.member()
        await crowd._enrol(member, 1)
        held = [await crowd.dial(member, 1, LinkClass.MEMBER) for _ in range(6)]
        with pytest.raises(DialError) as caught:
            await crowd.dial(member, 1, LinkClass.MEMBER)
        assert (caught.value.code, caught.value.retry_after) == (CloseCode.RETRY_AFTER, 0.3)
        neighbour = crowd.member()
        await crowd._enrol(neighbour, 2)  # another address has its own
        (line,) = site.server.lines("link.refused")
        assert line["got"] == "6 connections of one address"
        assert line["remedy"]
        held.pop().close()
        async with asyncio.timeout(20):
            while True:  # as soon as one has gone there is room
                try:
                    held.append(await crowd.dial(member, 1, LinkClass.MEMBER))
                    break
                except DialError:
                    await asyncio.sleep(0.05)
        for channel in held:
            channel.close()
            await channel.gone()


@pytest.mark.needs("fuzz")
@pytest.mark.req("E6", "A6")
def test_2000_clients_and_the_default_bounds(site: Site) -> None:
    site.start_server()
    before, crowd = memory(site.server), crowd_of(site, site.bundle.read_bytes())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(storm(site, site.server, crowd, 2000))
    check(site, site.server, crowd, 2000)
    assert memory(site.server) - before < 300 << 20


async def _started(site: Site) -> bytes:
    await asyncio.to_thread(site.start_server)
    return site.bundle.read_bytes()
