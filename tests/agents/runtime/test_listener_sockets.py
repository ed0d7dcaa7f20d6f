"""A listening port under peers that are strangers, broken or hostile."""

import asyncio
import gc
import hashlib
import socket

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from agents.runtime import wire
from agents.runtime.errors import StateError
from agents.runtime.listener import Listener
from agents.runtime.network import DialError
from agents.runtime.remedies import REMEDIES
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.limits import Limits
from protocol.link import Link
from protocol.messages import LedgerEntries, LedgerGet, Ping, Pong
from tests.support.links import (
    HOST,
    SLOT,
    FakeContexts,
    answer,
    believe,
    connect,
    credentials,
    disbelieve,
    endpoint,
    foreign_root,
    is_dropped,
    listening,
    on_uvloop,
    root,
    stranger,
    until,
    works,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

ASK = LedgerGet(slot=SLOT, n=0, entry_id=bytes(32))


def connections() -> list[SSL.Connection]:
    """Every TLS connection of this process that is not freed."""
    return [one for one in gc.get_objects() if isinstance(one, SSL.Connection)]


@on_uvloop
class TestStart:
    async def test_port_0_is_any_that_is_free_and_is_told(self) -> None:
        async with listening() as site:
            assert site.port > 0

    async def test_a_port_in_use_is_refused_with_what_to_do(self) -> None:
        async with listening() as site:
            with pytest.raises(StateError, match="the port is in use") as failure:
                await Listener.start(
                    HOST, site.port, endpoint=endpoint("server"), verify=believe, handler=answer
                )
            assert "set another port" in failure.value.hint
            assert str(site.port) in failure.value.text

    async def test_an_address_of_another_host_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(StateError) as failure:
            await Listener.start(
                "192.0.2.1", 0, endpoint=endpoint("server"), verify=believe, handler=answer
            )
        assert "address of this host" in failure.value.hint

    async def test_a_tls_client_must_know_what_to_ask_for(self) -> None:
        with pytest.raises(ValueError, match="states the class"):
            await Listener.start(
                HOST,
                0,
                endpoint=endpoint("zone-server"),
                verify=believe,
                handler=answer,
                server_side=False,
            )

    async def test_stop_tells_every_peer_and_accepts_no_more(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            await site.first()
            await site.listener.stop(CloseCode.GOING_AWAY, "restart")
            closed = await channel.closed()
            assert (closed.code, closed.text) == (CloseCode.GOING_AWAY, "restart")
            with pytest.raises(DialError) as failure:
                await connect(site)
            assert failure.value.unreachable

    async def test_stop_waits_until_each_connection_is_gone(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            await site.first()
            await site.listener.stop()
            assert site.listener.connections == 0
            await channel.closed()

    async def test_close_drops_what_is_no_link_yet_and_keeps_the_links(self) -> None:
        async with listening(at=endpoint("server", handshake_timeout=60.0)) as site:
            channel = await connect(site)
            reader, writer = await stranger(site)
            await until(lambda: site.listener.handshakes == 1)
            site.listener.close()
            async with asyncio.timeout(10):
                assert await is_dropped(reader)
            writer.close()
            await until(lambda: site.listener.connections == 1)
            assert channel.is_open

    async def test_contexts_are_asked_for_at_each_connection(self) -> None:
        """A change of trust needs no new listener."""
        here = endpoint("server")
        assert isinstance(here.contexts, FakeContexts)
        async with listening(at=here) as site:
            old = await connect(site)
            here.contexts.roots = (foreign_root().der,)
            with pytest.raises(DialError):
                await connect(site)
            assert isinstance(await old.request(Ping(id=1, sender=bytes(16))), Pong)


@on_uvloop
class TestGarbage:
    @pytest.mark.parametrize(
        "sent",
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(4096), b"\x16\x03\x01\xff\xff" + b"z" * 70000],
        ids=["plain text", "zeros", "a record that is none"],
    )
    async def test_what_is_no_tls_costs_its_own_connection(self, sent: bytes) -> None:
        with logged() as lines:
            async with listening() as site:
                reader, writer = await stranger(site)
                writer.write(sent)
                assert await is_dropped(reader)
                writer.close()
                assert await works(site)
        (refused,) = [line for line in lines if line["event"] == "link.refused"]
        assert (refused["reason"], refused["fingerprint"]) == ("protocol_error", "-")
        assert refused["remedy"]
        assert str(refused["remote"]).startswith(f"['{HOST}'")

    async def test_who_is_still_sending_sees_an_end_and_no_reset(self) -> None:
        """A reset could overtake the CLOSE that says why, and throw it away."""
        async with listening() as site:
            reader, writer = await stranger(site)
            writer.write(b"x" * 600_000)
            await writer.drain()
            while await reader.read(65536):  # a reset would raise here
                pass
            writer.close()

    async def test_who_sends_on_and_on_after_the_end_is_dropped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire, "LINGER", 3600.0)
        async with listening() as site:
            reader, writer = await stranger(site)
            writer.write(b"no TLS")
            assert await reader.read() == b""
            assert site.listener.connections == 1
            writer.write(bytes(wire.LINGER_BYTES + 65536))
            await until(lambda: site.listener.connections == 0)
            writer.transport.abort()

    async def test_a_handshake_that_is_larger_than_its_limit_is_refused(self) -> None:
        async with listening(at=endpoint("server", limits=Limits(handshake=100))) as site:
            with pytest.raises(DialError) as failure:
                await connect(site)
            assert failure.value.unreachable
            assert not site.opened

    @pytest.mark.parametrize("cut", [0, 1, 60, 120])
    async def test_a_handshake_that_is_cut_off_is_no_refusal(self, cut: int) -> None:
        """A port scan and a health check are nobody that an operator must care for."""
        link = Link(
            FakeContexts(credentials("client"), (root().der,)).member(),
            server_side=False,
            local_role="client",
            verify=believe,
            link_class=LinkClass.MEMBER,
            handshake_deadline=1e9,
            idle_timeout=60.0,
        )
        with logged() as lines:
            async with listening() as site:
                _reader, writer = await stranger(site)
                writer.write(link.data_to_send()[:cut])
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                await until(lambda: site.listener.connections == 0)
                assert await works(site)
        assert not [line for line in lines if line["event"] == "link.refused"]
        assert [line for line in lines if line["event"] == "link.abandoned"]

    async def test_who_says_nothing_is_dropped_at_the_deadline(self) -> None:
        with logged() as lines:
            async with listening(at=endpoint("server", handshake_timeout=0.05)) as site:
                reader, writer = await stranger(site)
                assert await is_dropped(reader)
                writer.close()
                await until(lambda: site.listener.connections == 0)
        (refused,) = [line for line in lines if line["event"] == "link.refused"]
        assert refused["reason"] == "handshake_timeout"


@on_uvloop
class TestEnd:
    async def test_nothing_of_a_connection_waits_for_the_garbage_collector(self) -> None:
        """TLS state is tens of KiB: a storm of short connections would pile it up."""
        async with listening() as site:

            async def visit() -> None:
                channel = await connect(site)
                far = await site.first()
                channel.close()
                await channel.gone()
                await far.gone()
                site.opened.clear()

            await visit()  # what is made once is kept
            gc.disable()
            try:
                before = connections()
                await visit()
                await asyncio.sleep(0)
                assert [one for one in connections() if one not in before] == []
            finally:
                gc.enable()


@on_uvloop
class TestRefusals:
    @pytest.mark.req("E5")
    async def test_a_foreign_certificate_is_one_line_with_its_fingerprint(self) -> None:
        shown = credentials("client", foreign_root)
        spki = shown.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with logged() as lines:
            async with listening(kind="client-server", expected="a client of ours") as site:
                intruder = endpoint("client", authority=foreign_root)
                with pytest.raises(DialError) as failure:
                    await connect(site, at=intruder)
                assert failure.value.code is CloseCode.UNTRUSTED
                assert failure.value.by_peer
                assert not site.opened
        refused = [line for line in lines if line["event"] == "link.refused"]
        (theirs,) = [line for line in refused if not line["by_peer"]]
        assert theirs["fingerprint"] == hashlib.sha256(spki).hexdigest()
        assert theirs["kind"] == "client-server"
        assert theirs["expected"] == "a client of ours"
        assert theirs["reason"] == "untrusted"
        assert theirs["remedy"] == REMEDIES["untrusted"]
        assert len(refused) == 2  # the other is the intruder's own

    async def test_what_verify_finds_reaches_the_dialer_with_the_clock(self) -> None:
        with logged() as lines:
            async with listening(verify=disbelieve(CloseCode.EXPIRED, "expired in 1999")) as site:
                with pytest.raises(DialError) as failure:
                    await connect(site)
                assert failure.value.code is CloseCode.EXPIRED
                assert failure.value.peer_time is not None
                assert "1999" not in failure.value.text  # the reason is not the peer's business
        (theirs,) = [
            line for line in lines if line["event"] == "link.refused" and not line["by_peer"]
        ]
        assert (theirs["reason"], theirs["got"]) == ("expired", "expired in 1999")
        assert len(str(theirs["fingerprint"])) == 64
        assert not [line for line in lines if line["event"] == "link.opened"]

    def test_every_code_has_a_remedy(self) -> None:
        fine = {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.SUPERSEDED}
        assert not {code.name.lower() for code in set(CloseCode) - fine} - set(REMEDIES)

    async def test_without_a_certificate_of_our_own_nobody_gets_in_yet(self) -> None:
        here = endpoint("server")
        assert isinstance(here.contexts, FakeContexts)
        here.contexts.shown = None
        with logged() as lines:
            async with listening(at=here) as site:
                with pytest.raises(DialError) as failure:
                    await connect(site)
                assert failure.value.unreachable
                await until(lambda: site.listener.connections == 0)
                here.contexts.shown = credentials("server")
                assert await works(site)
        assert [line["reason"] for line in lines if line["event"] == "link.refused"] == ["unready"]


@on_uvloop
class TestHubPort:
    """Who accepts TCP is the TLS client: the port of a zone server for its hubs."""

    @pytest.mark.parametrize("link_class", list(LinkClass))
    async def test_the_acceptor_says_what_class_the_link_is(self, link_class: LinkClass) -> None:
        async with listening(
            "zone-server", server_side=False, classify=lambda _remote: link_class
        ) as site:
            channel = await connect(site, "hub", link_class=None, server_side=True)
            assert channel.link_class is link_class
            other = await site.first()
            assert other.link_class is link_class
            if link_class is LinkClass.MEMBER:
                assert isinstance(await channel.request(Ping(id=1, sender=bytes(16))), Pong)
            else:
                assert isinstance(await other.request(ASK), LedgerEntries)

    async def test_a_hub_of_another_deployment_is_refused_in_the_handshake(self) -> None:
        with logged() as lines:
            async with listening(
                "zone-server", server_side=False, classify=lambda _remote: LinkClass.MEMBER
            ) as site:
                intruder = endpoint("hub", authority=foreign_root)
                with pytest.raises(DialError) as failure:
                    await connect(site, at=intruder, link_class=None, server_side=True)
                assert failure.value.code is CloseCode.UNTRUSTED
                assert not site.opened
        (theirs,) = [
            line
            for line in lines
            if line["event"] == "link.refused" and line["kind"] == "zone-server port"
        ]
        assert len(str(theirs["fingerprint"])) == 64

    async def test_a_hub_that_the_zone_server_does_not_want_hears_it_from_dial(self) -> None:
        """The TLS server is done first here: only the question tells (`dialer`)."""
        async with listening(
            "zone-server",
            server_side=False,
            classify=lambda _remote: LinkClass.MEMBER,
            verify=disbelieve(CloseCode.REVOKED),
        ) as site:
            with pytest.raises(DialError) as failure:
                await connect(site, "hub", link_class=None, server_side=True)
            assert failure.value.code is CloseCode.REVOKED


@on_uvloop
class TestEveryPair:
    @pytest.mark.parametrize(
        ("client", "server"),
        [("client", "server"), ("client", "zone-server"), ("client", "client"), ("hub", "server")],
    )
    async def test_members_that_have_a_link_get_one(self, client: str, server: str) -> None:
        async with listening(server) as site:
            channel = await connect(site, client)
            assert isinstance(await channel.request(Ping(id=1, sender=bytes(16))), Pong)

    async def test_members_that_have_none_are_refused_by_their_roles(self) -> None:
        async with listening("server") as site:
            with pytest.raises(DialError) as failure:
                await connect(site, "zone-server")
            assert failure.value.code is CloseCode.WRONG_ROLE


def test_the_tests_use_two_different_roots() -> None:
    assert root().der != foreign_root().der
    assert socket.gethostbyname(HOST) == HOST
