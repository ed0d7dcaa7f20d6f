"""Every link, and on each an attacker who is wrong in one way: refused, logged, shown nothing."""

import socket
import ssl
import threading
import uuid

import pytest

from agents.runtime.remedies import REMEDIES
from pki.certificates import Kind
from protocol.access import LinkClass
from protocol.tls import Credentials
from tests.daemons.places import call, shown_at
from tests.daemons.resumption import Resumer, resumes
from tests.daemons.siege import Siege, Talk, knock
from tests.support.daemons import Daemon, Line
from tests.support.thief import ATTACKS, leaf_id, mint

pytestmark = pytest.mark.sockets

attacks = pytest.mark.parametrize("attack", ATTACKS)


def refusal(victim: Daemon, shown: Credentials, reason: str) -> Line:
    """The one line of a refusal: which link, whose key, what was expected, what to do."""
    line = victim.wait("link.refused", fingerprint=leaf_id(shown))
    assert line["reason"] == reason, line
    assert not line["by_peer"]
    assert line["kind"]
    assert line["link"]
    assert line["expected"]
    assert line["got"]
    assert line["remedy"] == REMEDIES[reason]
    assert len(victim.lines("link.refused", link=line["link"])) == 1
    assert victim.lines("link.opened", link=line["link"]) == []
    return line


class TestServerPort:
    @attacks
    @pytest.mark.parametrize("kind", [Kind.CLIENT_TLS, Kind.HUB_TLS])
    @pytest.mark.req("E1", "E5", "A12", "B4")
    def test_refused(self, siege: Siege, attack: str, kind: Kind) -> None:
        shown = ATTACKS[attack].forge(siege.loot, siege.part(kind, siege.server))
        if kind is Kind.HUB_TLS and attack == "another role":
            shown = mint(
                siege.loot.root, Kind.SERVER_TLS, bytes(16), deployment=siege.loot.deployment
            )
        host, port = siege.site.address(1), siege.site.port
        refused_at(siege, siege.server, host, port, shown, ATTACKS[attack].reason)

    @pytest.mark.req("A12")
    def test_client_of_another_responder(self, siege: Siege) -> None:
        part = siege.part(Kind.CLIENT_TLS, siege.server)
        other = siege.loot.other_ca[part.responder]
        shown = mint(other, part.kind, part.id, deployment=siege.loot.deployment)
        host, port = siege.site.address(1), siege.site.port
        refused_at(siege, siege.server, host, port, shown, "wrong_role")


class TestZoneServerPort:
    @attacks
    @pytest.mark.req("E1", "E5", "A12", "B4")
    def test_refused(self, siege: Siege, attack: str) -> None:
        shown = ATTACKS[attack].forge(siege.loot, siege.part(Kind.CLIENT_TLS, siege.zone))
        host, port = siege.site.address(2), siege.site.port
        refused_at(siege, siege.zone, host, port, shown, ATTACKS[attack].reason)

    @pytest.mark.req("A12")
    def test_client_of_another_responder(self, siege: Siege) -> None:
        part = siege.part(Kind.CLIENT_TLS, siege.zone)
        other = siege.loot.other_ca[part.responder]
        shown = mint(other, part.kind, part.id, deployment=siege.loot.deployment)
        host, port = siege.site.address(2), siege.site.port
        refused_at(siege, siege.zone, host, port, shown, "wrong_role")


class TestClientPort:
    @attacks
    @pytest.mark.req("E1", "E5", "A12", "B4", "G1")
    def test_refused(self, siege: Siege, attack: str) -> None:
        shown = ATTACKS[attack].forge(siege.loot, siege.part(Kind.CLIENT_TLS, siege.server))
        host, port = siege.site.address(11), siege.site.port
        refused_at(siege, siege.inside, host, port, shown, ATTACKS[attack].reason)

    @pytest.mark.req("A12", "G6")
    def test_client_of_another_responder(self, siege: Siege) -> None:
        part = siege.part(Kind.CLIENT_TLS, siege.zone)
        shown = mint(part.issuer, part.kind, part.id, deployment=siege.loot.deployment)
        host, port = siege.site.address(11), siege.site.port
        refused_at(siege, siege.inside, host, port, shown, "wrong_role")


class TestHubPort:
    """A false hub dials the zone server, which is the TLS client there."""

    @attacks
    @pytest.mark.req("E1", "E5", "A12", "B4", "E2")
    def test_refused(self, siege: Siege, attack: str) -> None:
        shown = ATTACKS[attack].forge(siege.loot, siege.part(Kind.HUB_TLS))
        # Nobody was refused from there: that would have the zone server ask for news first, and
        # discovery is rationed.
        talk = self._knock(siege, shown, source=90 + list(ATTACKS).index(attack))
        assert talk.opened is not LinkClass.DISCOVERY
        assert talk.heard == []
        line = refusal(siege.zone, shown, ATTACKS[attack].reason)
        assert line["kind"] == "zone server to hub"

    def _knock(self, siege: Siege, shown: Credentials, *, source: int) -> Talk:
        return knock(
            siege.site.address(2),
            siege.site.port + 1,
            role="hub",
            victim="zone-server",
            shown=shown,
            roots=siege.roots,
            server_side=True,
            source=siege.site.address(source),
        )


class TestResumption:
    @pytest.mark.req("B4")
    @pytest.mark.parametrize("where", ["server", "zone", "inside"])
    def test_no_session_can_be_resumed(self, siege: Siege, where: str) -> None:
        responder = siege.zone if where == "zone" else siege.server
        part = siege.part(Kind.CLIENT_TLS, responder)
        shown = mint(part.issuer, part.kind, uuid.uuid4().bytes, deployment=siege.loot.deployment)
        host = siege.site.address({"server": 1, "zone": 2, "inside": 11}[where])
        given, resumed = resumes(host, siege.site.port, shown, siege.roots)
        assert not given
        assert not resumed

    @pytest.mark.req("B4", "E2")
    def test_no_session_is_resumed_at_the_hub_port(self, siege: Siege) -> None:
        """There a zone server is the TLS client, and takes no ticket of a hub."""
        resumer = Resumer.of(shown_at(siege, "hub port"), siege.roots, server_side=True)
        for _ in range(2):
            with call(siege, "hub port", source=68) as sock:
                resumer.meet(sock)
        assert resumer.reused == [False, False]


class TestTheResumerItself:
    @pytest.mark.req("B4")
    def test_resumes_where_it_can(self, siege: Siege) -> None:
        """With one like itself at the other end, whichever that is."""
        shown = shown_at(siege, "hub port")
        ends = [Resumer.of(shown, siege.roots, server_side=side) for side in (True, False)]
        ends[1].context.verify_mode = ssl.CERT_NONE
        for _ in range(2):
            pair = socket.socketpair()
            thread = threading.Thread(target=ends[0].meet, args=(pair[0],))
            thread.start()
            ends[1].meet(pair[1])
            thread.join()
        assert [end.reused for end in ends] == [[False, True]] * 2


class TestAfterwards:
    def test_everybody_still_serves(self, siege: Siege) -> None:
        newcomer = siege.site.add_client("newcomer", 14).launch()
        newcomer.wait("key.activated")
        newcomer.wait("chain.placed")
        for daemon in (siege.server, siege.zone, siege.hub, siege.inside, siege.outside):
            assert daemon.running
            assert daemon.lines("handler.failed") == []
            assert daemon.lines("task.failed") == []

    def test_the_honest_key_is_taken(self, siege: Siege) -> None:
        """The same forger, wrong in no way: it is the wrongness that is refused above."""
        part = siege.part(Kind.CLIENT_TLS, siege.server)
        shown = mint(part.issuer, part.kind, uuid.uuid4().bytes, deployment=siege.loot.deployment)

        talk = knock(
            siege.site.address(1),
            siege.site.port,
            role="client",
            victim="server",
            shown=shown,
            roots=siege.roots,
        )
        assert talk.opened is LinkClass.MEMBER
        assert talk.closed is None


def refused_at(
    siege: Siege, victim: Daemon, host: str, port: int, shown: Credentials, reason: str
) -> None:
    talk = knock(
        host,
        port,
        role="client",
        victim="client" if victim.role == "client" else "server",
        shown=shown,
        roots=siege.roots,
    )
    assert talk.refused, talk
    refusal(victim, shown, reason)
