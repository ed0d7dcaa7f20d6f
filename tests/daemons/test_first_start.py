"""The first start of a server, and what of its keys can be seen from outside (A1, A2, A4, I5)."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.runtime.files import DISK
from agents.server.standby import Standby
from pki import keys
from pki.certificates import Kind
from pki.keys import PrivateKey
from tests.support.daemons import Daemon, Site
from tests.support.kernel import sockets_of

pytestmark = pytest.mark.sockets


@pytest.fixture(scope="module")
def running(make_site: Callable[[], Site]) -> Site:
    """A server, a hub, a zone server, a client inside and one outside; two roots."""
    site = make_site()
    site.start_server()
    zone = site.add_zone("zone", 2).launch()
    hub = site.add_hub("hub", f"{site.address(2)}:{site.port + 1}").launch()
    inside = site.add_client("inside", 11).launch()
    site.approve("hub")
    site.approve("zone-server")
    outside = site.add_client("outside", 12, servers=[f"{site.address(2)}:{site.port}"])
    zone.wait("key.activated", kind="client-ca")
    outside.launch()
    inside.wait("key.activated")
    outside.wait("key.activated")
    hub.wait("link.opened", kind="hub to zone server", link_class="member")
    return site


class TestNothingAsked:
    @pytest.mark.req("A1", "A2")
    def test_server_makes_everything_by_itself(self, site: Site) -> None:
        site.server.start()
        (founded,) = site.server.lines("deployment.founded")
        (root,) = site.api.get("roots")
        assert founded["name"] == root["name"] == "server.test Root 0"
        assert root["fingerprint"] == founded["fingerprint"]
        assert root["current"]
        made = {path.name for path in site.server.state.iterdir()}
        assert {"pki.db", "standby.db", "server.db", "lock"} <= made
        assert any(name.startswith("ledger") for name in made)
        assert site.server.output.text == []  # nobody is asked, or told, anything

    @pytest.mark.req("A1")
    def test_everything_is_for_its_user_alone(self, site: Site) -> None:
        site.server.start()
        assert site.server.state.stat().st_mode & 0o777 == 0o700
        for name in ("pki.db", "pki.key", "standby.db"):
            assert (site.server.state / name).stat().st_mode & 0o777 == 0o600
        assert (site.folder / "standby" / "standby.key").stat().st_mode & 0o777 == 0o600
        assert site.socket.stat().st_mode & 0o777 == 0o600

    @pytest.mark.req("A1")
    def test_the_second_start_makes_nothing(self, site: Site) -> None:
        site.server.start()
        before = site.api.get("roots"), site.api.get("status")["keys"]
        site.server.restart()
        assert site.server.lines("deployment.founded") == []
        assert (site.api.get("roots"), site.api.get("status")["keys"]) == before

    def test_ready_is_said_when_administrators_are_answered(self, site: Site) -> None:
        site.server.start()
        assert site.api.get("status")["role"] == "server"


class TestWhereKeysAre:
    @pytest.mark.req("C1")
    def test_roots_and_subordinate_keys_are_in_pki_db(self, running: Site) -> None:
        keyring = keyring_of(running.server)
        assert {held.kind for held in keyring.credentials} == {
            Kind.CLIENT_CA,
            Kind.SERVER_TLS,
            Kind.MESSAGE_SIGNING,
        }
        (root,) = running.api.get("roots")
        assert {key_id.hex() for key_id in keyring.root_ids} == {root["fingerprint"]}

    @pytest.mark.req("A7", "E2")
    def test_each_component_has_its_own_keys_and_nobody_elses(self, running: Site) -> None:
        owners: dict[bytes, str] = {}
        for daemon in running.daemons.values():
            for key in private_keys(daemon):
                assert owners.setdefault(keys.private_bytes(key), daemon.name) == daemon.name
        kinds = {held.kind for held in keyring_of(running.daemons["zone"]).credentials}
        assert kinds == {Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA}
        assert keyring_of(running.daemons["zone"]).root_ids == frozenset()

    @pytest.mark.req("A4")
    def test_no_interface_shows_a_private_byte(self, running: Site) -> None:
        shown = "\n".join(everything_shown(running)).lower()
        files = [*running.folder.glob("**/status.json"), *running.folder.glob("**/server.db*")]
        raw = b"".join(path.read_bytes() for path in [running.bundle, *files])
        secrets = [
            form for daemon in running.daemons.values() for form in secret_forms(running, daemon)
        ]
        assert len(secrets) > 60
        for secret in secrets:
            assert secret not in raw
            assert secret.hex() not in shown
            for start in range(3):  # wherever it begins in a longer base64 text
                text = base64.b64encode(bytes(start) + secret).decode().lower()
                assert text[4 if start else 0 : -4] not in shown

    @pytest.mark.req("A4")
    def test_the_search_finds_what_is_there(self, running: Site) -> None:
        """The proof above is worth something: what is public is found by the same search."""
        shown = "\n".join(everything_shown(running)).lower()
        for daemon in running.daemons.values():
            for held in keyring_of(daemon).credentials:
                assert held.leaf.fingerprint in shown


class TestPorts:
    @pytest.mark.req("I5", "E2")
    def test_a_hub_listens_on_no_port(self, running: Site) -> None:
        hub = sockets_of(running.daemons["hub"].pid)
        assert hub.listening == set()
        assert hub.datagram == set()
        assert hub.established  # the table was read: its links are there

    @pytest.mark.req("I5")
    def test_the_others_listen_where_they_were_told_to(self, running: Site) -> None:
        for name, ports in (("server", {0}), ("zone", {0, 1}), ("inside", {0})):
            found = sockets_of(running.daemons[name].pid)
            assert {port - running.port for _, port in found.listening} == ports
            assert found.datagram == set()

    @pytest.mark.req("E2")
    def test_a_zone_server_opens_no_connection(self, running: Site) -> None:
        zone = sockets_of(running.daemons["zone"].pid)
        own = {port for _, port in zone.listening}
        assert zone.established
        assert {local[1] for local, _ in zone.established} <= own


def keyring_of(daemon: Daemon) -> Keyring:
    return Keyring(daemon.state / ("pki.db" if daemon.role == "server" else "keys.db"), DISK)


def private_keys(daemon: Daemon) -> list[PrivateKey]:
    keyring = keyring_of(daemon)
    roots = [keyring.root(key_id) for key_id in keyring.root_ids]
    return [
        keyring.identity,
        *(held.key for held in keyring.credentials),
        *(key for key in roots if key is not None),
    ]


def secret_forms(site: Site, daemon: Daemon) -> Iterator[bytes]:
    """Every private key as it is written, and as the bare number; every key of a sealed file."""
    held = private_keys(daemon)
    if daemon.role == "server":
        standby = Standby(
            daemon.state / "standby.db", site.folder / "standby" / "standby.key", DISK
        )
        held += standby.load().values()
        yield (site.folder / "standby" / "standby.key").read_bytes()
    for key in held:
        yield keys.private_bytes(key)
        yield key.private_numbers().private_value.to_bytes(32)
    for path in daemon.state.glob("*.key"):
        yield path.read_bytes()


def everything_shown(site: Site) -> Iterator[str]:
    """What every program logs, and what every command prints, for people and for programs."""
    states = [daemon.state for daemon in site.daemons.values()]
    exported = site.folder / "exported.dat"
    for json_ in (True, False):
        for words in (
            ("status",),
            ("root", "list"),
            ("root", "log"),
            ("rotation", "status"),
            ("approvals", "list"),
            ("approvals", "log"),
            ("clients", "list"),
            ("settings", "list"),
            ("bundle", "inspect", str(site.bundle)),
            ("cert", "inspect", f"{site.address(1)}:{site.port}"),
            *(("pki", "show", "--state", str(state)) for state in states),
        ):
            ended = site.call(*words, json_=json_)
            assert ended.code == 0, ended
            yield ended.out
            yield ended.err
    exported.unlink(missing_ok=True)
    ended = site.call("bundle", "export", str(exported))
    assert ended.code == 0, ended
    yield ended.out + ended.err
    yield exported.read_bytes().hex()
    for daemon in site.daemons.values():
        yield daemon.everything_said()
        yield Path(daemon.config).read_text()
