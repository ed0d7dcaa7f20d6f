"""A deployment that is changed, copied and restarted while it runs."""

import shutil
from datetime import timedelta

import pytest

from agents.runtime.errors import Exit
from pki import rotation
from pki.certificates import Kind
from tests.support.daemons import Daemon, Site
from tests.support.thief import keyring_of

pytestmark = pytest.mark.sockets

VALIDITY = {
    Kind.SERVER_TLS: "server",
    Kind.HUB_TLS: "hub",
    Kind.ZONE_SERVER_TLS: "zone",
    Kind.MESSAGE_SIGNING: "server",
    Kind.CLIENT_CA: "server",
    Kind.CLIENT_TLS: "inside",
}
"""For each kind, a component that holds one."""


def whole(site: Site) -> tuple[Daemon, Daemon, Daemon]:
    """Hub, zone server and a client inside, all certified."""
    site.start_server()
    zone = site.add_zone("zone", 2).launch()
    hub = site.add_hub("hub", f"{site.address(2)}:{site.port + 1}").launch()
    inside = site.add_client("inside", 11).launch()
    site.approve("hub")
    site.approve("zone-server")
    zone.wait("key.activated", kind="client-ca")
    inside.wait("key.activated")
    return hub, zone, inside


class TestSettings:
    @pytest.mark.req("B8", "B7", "B1")
    def test_twelve_settings_act_on_the_next_certificate(self, site: Site) -> None:
        daemons = whole(site)
        names = list(rotation.SETTINGS)
        assert len(names) == 12
        wanted: dict[str, int] = {}
        for place, name in enumerate(names):
            wanted[name] = 40 + place if name.endswith("Days") else 300 + place
            site.api.put("settings", name, value=str(wanted[name]))
        policies, _ = rotation.policies({**rotation.SETTINGS, **wanted})
        for daemon in daemons[:2]:
            daemon.wait("settings.told", revision=lambda r: int(str(r)) >= 12)
        root = site.api.post("roots", confirmed=True)["root"]["fingerprint"]
        for daemon in daemons:
            daemon.wait("key.activated", root=root)
        site.daemons["zone"].wait("key.activated", root=root, kind="client-ca")
        for kind, name in VALIDITY.items():
            held = keyring_of(site.daemons[name]).credential(kind)
            assert held is not None
            assert held.root.hex() == root
            life = held.leaf.not_after - held.leaf.not_before
            assert policies[kind].validity <= life <= policies[kind].validity + timedelta(hours=1)
            assert held.window == policies[kind].window

    @pytest.mark.req("B8")
    def test_a_value_out_of_range_changes_nothing(self, site: Site) -> None:
        site.start_server()
        name = next(iter(rotation.SETTINGS))
        before = site.api.get("settings")
        for value in ("0", "-1", "ten", "999999"):
            ended = site.call("settings", "set", name, "--", value, json_=False)
            assert ended.code == Exit.ERROR
            assert name in ended.err
        assert site.api.get("settings") == before


class TestApproval:
    @pytest.mark.req("I2")
    @pytest.mark.parametrize("role", ["hub", "zone-server"])
    def test_without_approval_there_is_no_certificate(self, site: Site, role: str) -> None:
        site.start_server()
        zone = site.add_zone("zone", 2).launch()
        hub = site.add_hub("hub", f"{site.address(2)}:{site.port + 1}").launch()
        if role == "zone-server":
            site.approve("hub")
        asked = site.server.wait("approval.pending", peer_role=role)
        daemon = hub if role == "hub" else zone
        event = "uplink.unavailable" if role == "hub" else "enrolment.waiting"
        waiting = daemon.wait(event)
        assert "approval" in waiting["reason"]
        assert waiting["hint"].endswith(f"anchorline approvals approve {asked['fingerprint']}")
        site.api.post("approvals", asked["fingerprint"], "deny", reason="not ours")
        said = daemon.wait(event, reason=lambda text: "denied" in str(text))
        assert "denied by an administrator" in said["reason"]
        line = site.server.wait("enrolment.refused", fingerprint=asked["fingerprint"])
        assert "denied" in line["reason"]
        assert keyring_of(daemon).credentials == ()
        assert daemon.running


class TestClones:
    @pytest.mark.req("F1")
    def test_two_machines_with_one_identity_are_told_apart(self, site: Site) -> None:
        site.start_server()
        first = site.add_client("first", 11).launch()
        site.server.wait("client.registered")
        assert first.stop() == 0
        second = site.add_client("second", 12)
        shutil.copytree(first.state, second.state)
        second.state.chmod(0o700)
        assert keyring_of(first).id == keyring_of(second).id
        first.launch()
        second.launch()
        cloned = site.server.wait("client.cloned")
        assert cloned["client"]
        site.server.wait("client.registered", client=lambda id: id != cloned["client"])
        ids = {keyring_of(first).id, keyring_of(second).id}
        assert len(ids) == 2
        renewed = first.lines("identity.renewed") + second.lines("identity.renewed")
        assert [line["old"] for line in renewed] == [cloned["client"]]
        assert {row["id"] for row in site.api.get("clients")} == {id.hex() for id in ids}


class TestRestart:
    @pytest.mark.req("F1", "G1")
    def test_a_server_finds_its_clients_where_they_were(self, site: Site) -> None:
        site.start_server()
        clients = [site.add_client(f"client-{n}", 10 + n).launch() for n in (1, 2)]
        line = {client.name: client.wait("neighbour.linked")["link"] for client in clients}
        before = {row["id"]: row["host"] for row in site.api.get("clients")}
        issued = site.api.get("status")["signatures"]
        marks = [client.mark for client in clients]
        site.server.restart()
        site.server.wait("link.opened", kind="server port", link_class="member")
        for client, mark in zip(clients, marks, strict=True):
            # Its token is still good, and the line between the two never broke.
            client.wait("link.opened", after=mark)
            assert client.lines("identity.renewed") == []
            assert client.lines("link.closed", link=line[client.name]) == []
        assert site.server.lines("client.cloned") == []
        assert {row["id"]: row["host"] for row in site.api.get("clients")} == before
        assert site.api.get("status")["signatures"] == issued

    @pytest.mark.parametrize("how", ["in order", "kill -9"])
    def test_each_daemon_goes_on_where_it_was(self, site: Site, how: str) -> None:
        for daemon in whole(site):
            held = {c.kind: c.leaf.fingerprint for c in keyring_of(daemon).credentials}
            if how == "in order":
                assert daemon.stop() == 0
            else:
                daemon.kill()
            daemon.start()
            daemon.wait("link.opened", link_class="member")
            assert daemon.lines("key.activated") == []
            assert {c.kind: c.leaf.fingerprint for c in keyring_of(daemon).credentials} == held

    def test_what_was_decided_outlives_a_kill(self, site: Site) -> None:
        hub, _, _ = whole(site)
        site.api.put("settings", next(iter(rotation.SETTINGS)), value="77")
        site.api.post("roots", confirmed=True)
        before = [site.api.get(name) for name in ("roots", "settings", "approvals")]
        site.server.kill()
        site.server.start()
        after = [site.api.get(name) for name in ("roots", "settings", "approvals")]
        assert after[:2] == before[:2]
        seen = {"last_seen"}
        assert [{k: v for k, v in row.items() if k not in seen} for row in after[2]] == [
            {k: v for k, v in row.items() if k not in seen} for row in before[2]
        ]
        site.server.wait("link.opened", link_class="member")
        assert hub.running
