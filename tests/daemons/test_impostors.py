"""Whoever dials may be misled: an impostor at the other end is refused, and shown nothing."""

import uuid
from contextlib import ExitStack

import pytest

from pki.certificates import Kind
from protocol.tls import Credentials
from tests.daemons.siege import Siege
from tests.daemons.trap import DIALS, Dial, Impostor, Lures, Trap, deceived, the_one_line
from tests.support.daemons import Daemon
from tests.support.thief import ATTACKS, leaf_id, mint

pytestmark = pytest.mark.sockets

MISLED = [name for name, dial in DIALS.items() if dial.server_side]


def refuses(victim: Daemon, dial: Dial, impostor: Trap, shown: Credentials, reason: str) -> None:
    """One line, with the key that was shown, and what it was refused for."""
    line = the_one_line(victim, dial, impostor, fingerprint=leaf_id(shown))
    assert line["reason"] == reason, line
    assert not line["by_peer"]


class TestMisled:
    """Each that dials as a TLS client, and on each an impostor who is wrong in one way.

    One who is wrong in no way is believed: see `test_dialled.py`.
    """

    @pytest.mark.parametrize("attack", ATTACKS)
    @pytest.mark.parametrize("dial", MISLED)
    @pytest.mark.req("E1", "E5", "A12", "B4")
    def test_refuses_and_shows_nothing(
        self, siege: Siege, lures: Lures, dial: str, attack: str
    ) -> None:
        way, reason = DIALS[dial], ATTACKS[attack].reason
        shown = ATTACKS[attack].forge(siege.loot, lures.part(way))
        with deceived(lures, way, shown) as (victim, impostor):
            refuses(victim, way, impostor, shown, reason)
        impostor.was_shown_nothing(certified=reason != "untrusted")


class TestNeighbours:
    """Another client where a neighbour should be."""

    @pytest.mark.req("A12", "G1", "G6")
    @pytest.mark.parametrize("of", ["our responder", "another responder"])
    def test_is_refused_and_shown_nothing(self, siege: Siege, lures: Lures, of: str) -> None:
        way = DIALS["client to client"]
        part = lures.part(way)
        other = siege.loot.other_ca[part.responder]
        if of == "our responder":
            shown = mint(
                part.issuer, part.kind, uuid.uuid4().bytes, deployment=siege.loot.deployment
            )
        else:
            shown = mint(other, part.kind, part.id, deployment=siege.loot.deployment)
        with deceived(lures, way, shown) as (victim, impostor):
            refuses(victim, way, impostor, shown, "wrong_role")
        impostor.was_shown_nothing(certified=True)


class TestFalseZoneServers:
    """A hub is made to dial impostors, one for each attack, and an honest zone server."""

    @pytest.mark.req("E1", "E5", "A12", "B4", "E2")
    def test_hub_refuses_each_and_shows_nothing(self, siege: Siege) -> None:
        way = DIALS["hub to zone server"]
        forged = {
            name: attack.forge(siege.loot, siege.part(Kind.ZONE_SERVER_TLS))
            for name, attack in ATTACKS.items()
        }
        port = siege.site.port + 1
        hosts = {name: siege.site.address(100 + place) for place, name in enumerate(forged)}
        honest = f"{siege.site.address(2)}:{port}"
        hub = siege.site.add_hub("scout", *(f"{host}:{port}" for host in hosts.values()), honest)
        with ExitStack() as stack:
            impostors = {
                name: stack.enter_context(
                    Impostor(
                        (hosts[name], port),
                        role="zone-server",
                        victim="hub",
                        shown=shown,
                        roots=siege.roots,
                        server_side=False,
                    )
                )
                for name, shown in forged.items()
            }
            hub.launch()
            siege.site.approve("hub")
            for name, shown in forged.items():
                refuses(hub, way, impostors[name], shown, ATTACKS[name].reason)
            # Among impostors it finds the honest one.
            hub.wait("link.opened", kind="hub to zone server")
            assert hub.stop() == 0
        for impostor in impostors.values():
            impostor.was_shown_nothing(certified=True)
