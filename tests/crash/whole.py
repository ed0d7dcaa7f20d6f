"""A deployment with one of each, and what lies on their disks."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agents.responder.records import IssuedRecord
from agents.runtime.files import TwoGenerations
from agents.runtime.journal import Journal
from agents.zone_server.records import _decode
from pki import state
from pki.certificates import Kind
from pki.ledger import Chain
from tests.support.daemons import Daemon, Site
from tests.support.thief import keyring_of

__all__ = ["Whole", "issued_by", "ledger_of", "serial_of", "whole"]


@dataclass(frozen=True)
class Whole:
    """Everybody, certified."""

    site: Site
    server: Daemon
    hub: Daemon
    zone: Daemon
    inside: Daemon
    """A client of the server."""
    outside: Daemon
    """A client of the zone server."""

    def newcomer(self, name: str, host: int) -> Daemon:
        """One more client of the zone server, not started."""
        return self.site.add_client(name, host, servers=[str(self.zone.options["listen"])])


def whole(site: Site) -> Whole:
    """Start one of each."""
    server = site.start_server()
    zone = site.add_zone("zone", 2).launch()
    hub = site.add_hub("hub", f"{site.address(2)}:{site.port + 1}").launch()
    inside = site.add_client("inside", 11).launch()
    site.approve("hub")
    site.approve("zone-server")
    zone.wait("key.activated", kind="client-ca")
    outside = site.add_client("outside", 12, servers=[str(zone.options["listen"])]).launch()
    zone.wait("client.registered", host="outside")
    server.wait("client.registered", host="inside")
    return Whole(site, server, hub, zone, inside, outside)


def ledger_of(daemon: Daemon) -> Chain:
    """The ledger that lies on a component's disk."""
    data, _ = TwoGenerations(daemon.state / "ledger").read()
    return state.decode_state(data).first.chain


def serial_of(client: Daemon) -> int:
    """Serial number of the certificate that a client holds."""
    held = keyring_of(client).credential(Kind.CLIENT_TLS)
    assert held is not None
    return held.leaf.serial


def issued_by(zone: Daemon) -> set[int]:
    """Serial numbers of the issues that a zone server has on record, as they lie on its disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(zone.state / "records.log", folder))
        journal, records = Journal.open(path)
        journal._thread.shutdown()
        values = [value for _, value in (_decode(path, record) for record in records)]
    return {value.serial for value in values if isinstance(value, IssuedRecord)}
