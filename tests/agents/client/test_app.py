"""A whole client in this process, with a real responder and a real state directory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agents.client.app import Client
from agents.client.config import Config
from agents.client.memory import Registration
from agents.member.starting import opened
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.lifecycle import Stop
from agents.runtime.network import Address
from agents.runtime.notify import Notifier
from pki.certificates import Kind
from pki.names import Role
from pki.rotation import CLIENT_WINDOW
from protocol.codes import CloseCode
from protocol.messages import Register
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.links import until
from tests.support.responder import HOST, Responder, responding

pytestmark = pytest.mark.sockets


@contextmanager
def made(folder: Path, site: Deployment, address: Address, clock: FakeClock) -> Iterator[Client]:
    """A client as its start makes it."""
    bundle = folder / "init.dat"
    if not bundle.exists():
        bundle.write_bytes(site.bundle())
    config = Config(
        servers=[HostPort(*address)],
        listen=HostPort(HOST, 0),
        source=HOST,
        host="endpoint",
        state=folder / "state",
        bundle=bundle,
        registration_min=1000.0,
        registration_max=3600.0,
    )
    with opened(
        config.state,
        Role.CLIENT,
        bundle=bundle,
        expect=None,
        clock=clock,
        log=logs.get_logger(),
    ) as (keyring, trust):
        yield Client(config, clock, keyring, trust)


@asynccontextmanager
async def running(
    folder: Path, site: Deployment, responder: Responder, clock: FakeClock
) -> AsyncIterator[Client]:
    """A client that is started and stopped as its daemon does it."""
    with made(folder, site, responder.address, clock) as client:
        stop = Stop(clock, Notifier(None))
        serving = asyncio.ensure_future(client.serve(stop))
        try:
            await until(lambda: client.registering.done > 0 or serving.done())
            assert not serving.done()
            yield client
        finally:
            stop.request("test")
            await serving


@pytest.mark.req("F1", "F2", "G2")
async def test_enrols_registers_and_alone_stands_on_a_link_to_its_responder(
    tmp_path: Path,
) -> None:
    site, clock = Deployment(), FakeClock()
    async with (
        responding(site, clock) as responder,
        running(tmp_path, site, responder, clock) as client,
    ):
        await until(lambda: client.uplink.link is not None)
        (row,) = responder.records.clients.values()
        assert (row.id, row.host) == (client.member.id, "endpoint")
        assert client.listener is not None
        assert (row.claimed, row.port) == (HOST, client.listener.port)
        assert client.chain.place.leader
        link = client.uplink.link
        assert link is not None
    assert (await link.closed()).code is CloseCode.GOING_AWAY


async def test_a_standing_link_that_cannot_be_kept_any_more_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise KeyError("a fault of ours")

    with made(tmp_path, Deployment(), (HOST, 1), FakeClock()) as client:
        monkeypatch.setattr(client.uplink, "keep", fail)
        client._leading.set()
        with pytest.raises(KeyError, match="a fault of ours"):
            await client._lead()


@pytest.mark.req("F1")
async def test_the_next_start_is_the_same_client_with_the_same_key(tmp_path: Path) -> None:
    site, clock = Deployment(), FakeClock()
    async with responding(site, clock) as responder:
        async with running(tmp_path, site, responder, clock) as client:
            id, token = client.member.id, client.memory.last.token
        async with running(tmp_path, site, responder, clock) as client:
            assert client.member.id == id
        assert len(responder.records.issued) == 1
        assert len(responder.records.clients) == 1
        shown = [m.token.hex() for m in responder.received if isinstance(m, Register)]
        assert shown[:2] == ["", token]


@pytest.mark.req("F1")
async def test_a_copy_of_its_state_becomes_another_client(tmp_path: Path) -> None:
    site, clock = Deployment(), FakeClock()
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with responding(site, clock) as responder:
        async with running(first, site, responder, clock) as client:
            id = client.member.id
        (second / "state").mkdir(mode=0o700)
        for file in (first / "state").iterdir():
            if file.is_file():
                (second / "state" / file.name).write_bytes(file.read_bytes())
        # The first goes on (twice: the token before the last is still taken), then the copy.
        for _ in range(2):
            async with running(first, site, responder, clock) as client:
                assert client.member.id == id
        copying = asyncio.ensure_future(_run_copy(second, site, responder, clock))
        await until(lambda: clock.due_network is not None)
        while not copying.done():
            await clock.advance_network(1.0)
        assert await copying != id
        assert set(responder.records.clients) == {id, copying.result()}


async def _run_copy(
    folder: Path, site: Deployment, responder: Responder, clock: FakeClock
) -> bytes:
    async with running(folder, site, responder, clock) as client:
        return client.member.id


@pytest.mark.req("B9")
async def test_a_renewal_that_is_asked_for_brings_a_new_key_and_a_new_link(
    tmp_path: Path,
) -> None:
    site, clock = Deployment(), FakeClock()
    async with (
        responding(site, clock) as responder,
        running(tmp_path, site, responder, clock) as client,
    ):
        await until(lambda: client.uplink.link is not None)
        before, link = client.keyring.credential(Kind.CLIENT_TLS), client.uplink.link
        assert before is not None
        assert link is not None
        await client._renew_now()
        after = client.keyring.credential(Kind.CLIENT_TLS)
        assert after is not None
        assert after.leaf.key_id != before.leaf.key_id
        assert (await link.closed()).code is CloseCode.SUPERSEDED


@pytest.mark.req("B7")
async def test_renews_by_itself_when_its_date_has_come(tmp_path: Path) -> None:
    site, clock = Deployment(), FakeClock()
    async with (
        responding(site, clock) as responder,
        running(tmp_path, site, responder, clock) as client,
    ):
        await until(lambda: client.renewal.next_at is not None)
        due = client.renewal.next_at
        assert due is not None
        clock.move(due - clock.now())
        await until(lambda: len(responder.records.issued) == 2)
        await until(lambda: client.renewal.next_at not in (None, due))


@pytest.mark.req("J7")
async def test_its_report_says_what_it_is_and_holds(tmp_path: Path) -> None:
    site, clock = Deployment(), FakeClock()
    async with (
        responding(site, clock) as responder,
        running(tmp_path, site, responder, clock) as client,
    ):
        id = client.member.id
    report = json.loads((tmp_path / "state" / "status.json").read_text())
    assert (report["role"], report["id"], report["host"]) == ("client", id.hex(), "endpoint")
    (key,) = report["keys"]
    held = client.keyring.credential(Kind.CLIENT_TLS)
    assert held is not None
    assert key["fingerprint"] == held.leaf.fingerprint
    assert key["root"] == site.root_id().hex()
    assert report["newest_root"] == site.root_id().hex()
    assert report["ledger"][0]["n"] == 0


@pytest.mark.parametrize(
    "said", ["9" * 300, "0", "-4", "four", "9999999", "²", ""], ids=lambda said: said[:8] or "-"
)
@pytest.mark.req("B8")
async def test_a_window_that_makes_no_sense_is_passed_over(tmp_path: Path, said: str) -> None:
    site, clock = Deployment(), FakeClock()
    async with (
        responding(site, clock) as responder,
        running(tmp_path, site, responder, clock) as client,
    ):
        client.memory.keep(Registration("aa", "01", {CLIENT_WINDOW: said}))
        assert client._policy().window == timedelta(hours=4)
        client.memory.keep(Registration("aa", "01", {CLIENT_WINDOW: "9"}))
        assert client._policy().window == timedelta(hours=9)
