"""What a peer says in well-formed frames, lying: it costs the request or the link, and a line.

On the real ports of a server, a zone server, a client and a zone server's hub port, with every
other part of the deployment in place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from pki import keys
from pki.certificates import Kind
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.link import Closed
from protocol.messages import (
    ClientRow,
    Done,
    Issued,
    Message,
    PeerHello,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
    Relay,
    Settings,
)
from protocol.tls import Credentials
from tests.daemons.caller import Caller
from tests.daemons.places import call, costs_one_line, place, shown_at, still_serves, warnings
from tests.daemons.siege import Siege, until
from tests.fuzz.names import NAMES, TOO_LONG
from tests.fuzz.requests import REQUESTS
from tests.support.components import Component
from tests.support.daemons import Daemon, Line
from tests.support.thief import keyring_of, leaf_id

pytestmark = pytest.mark.sockets

RESPONDERS = ("server", "zone")
responders = pytest.mark.parametrize("where", RESPONDERS)
ROLES = {"server": "server", "zone": "zone-server", "inside": "client"}


@contextmanager
def caller(siege: Siege, where: str, shown: Credentials | None = None) -> Iterator[Caller]:
    """Somebody on a link to that port."""
    with call(siege, where, source=65) as sock:
        yield Caller(sock, shown, siege.roots, victim=ROLES[where])


@contextmanager
def hub_at(siege: Siege, where: str) -> Iterator[Caller]:
    """A hub in order, at the zone server's hub port or at the server."""
    shown, zone = shown_at(siege, "hub port"), where == "hub port"
    with call(siege, where, source=67) as sock:
        victim = "zone-server" if zone else "server"
        yield Caller(sock, shown, siege.roots, role="hub", victim=victim, server_side=zone)


def enrolled(siege: Siege, where: str, who: Component, name: str = "host") -> Credentials:
    """The certificate of somebody who asks in order."""
    key = keys.generate()
    with caller(siege, where) as peer:
        asked = peer.request(who, key, deployment=siege.loot.deployment, host=name, secret=name)
        answer = peer.ask(asked)
    assert isinstance(answer, Issued), answer
    return Credentials(tuple(answer.chain), key)


def refused_request(daemon: Daemon, mark: int, peer: Caller, who: Component) -> Line:
    """The one line of a request for a certificate that was refused."""
    daemon.wait("enrolment.refused", after=mark, fingerprint=who.key_id.hex())
    lines = list(daemon.output.lines)[mark:]
    # Whoever else is at this daemon has lines of his own.
    ours = (peer.name[0], list(peer.name))
    bad = [line for line in lines if line["level"] in ("warning", "error")]
    (line,) = (line for line in bad if line.get("remote") in ours)
    assert line["event"] == "enrolment.refused"
    assert line["kind"] == Kind.CLIENT_TLS.value
    assert line["link"]
    assert "signed on this link" in line["expected"]
    assert line["reason"]
    assert line["remedy"]
    return line


def one_refused(daemon: Daemon, mark: int, peer: Caller, expected: str) -> Line:
    """The one line of a request that no honest peer makes."""
    line = daemon.wait("request.refused", after=mark, remote=list(peer.name))
    assert warnings(daemon, mark, peer.name) == [line]
    assert line["link"]
    assert line["kind"]
    assert len(line["fingerprint"]) == 64
    assert expected in line["expected"]
    assert "hostile" in line["remedy"]
    assert len(line["reason"]) < 600
    return line


class TestReplay:
    @responders
    @pytest.mark.req("B15", "E5")
    def test_a_captured_request_on_a_second_connection(self, siege: Siege, where: str) -> None:
        """Sent before its owner has sent it, and after; the owner is served all the same."""
        daemon, _ = place(siege, where)
        who, key = Component(), keys.generate()
        with caller(siege, where) as first:
            captured = first.request(who, key, deployment=siege.loot.deployment)
            with caller(siege, where) as second:
                mark = daemon.mark
                answer = second.ask(captured)
                assert isinstance(answer, Refused)
                assert "this link" in refused_request(daemon, mark, second, who)["reason"]
            again = first.request(who, key, deployment=siege.loot.deployment)
            assert isinstance(first.ask(again), Issued)
            for peer in (first, None):
                with caller(siege, where) as second:
                    mark = daemon.mark
                    answer = (peer or second).ask(again)
                    assert isinstance(answer, Refused)
                    assert answer.reason == "nonce"
                    assert "nonce" in refused_request(daemon, mark, peer or second, who)["reason"]
        issued = daemon.lines("certificate.issued", holder=who.id.hex())
        assert len(issued) == 1
        still_serves(siege, where)

    @pytest.mark.req("B15")
    def test_a_captured_request_at_another_issuer(self, siege: Siege) -> None:
        """A zone server that is not honest hands on the server's nonce, and the answer to it."""
        who, key = Component(), keys.generate()
        with caller(siege, "zone") as there, caller(siege, "server") as here:
            captured = there.request(
                who, key, deployment=siege.loot.deployment, nonce=here.nonce(who)
            )
            mark = siege.server.mark
            answer = here.ask(captured)
            assert isinstance(answer, Refused)
            assert "this link" in refused_request(siege.server, mark, here, who)["reason"]
        assert siege.server.lines("certificate.issued", holder=who.id.hex()) == []


class TestRequests:
    @responders
    @pytest.mark.req("A7", "E5")
    @pytest.mark.parametrize("what", REQUESTS)
    def test_a_request_with(self, siege: Siege, where: str, what: str) -> None:
        """The request is refused with a line, and the same link is good for an honest one."""
        daemon, _ = place(siege, where)
        who, key = Component(), keys.generate()
        with caller(siege, where) as peer:
            deployment = siege.loot.deployment
            wrong = peer.request(who, key, deployment=deployment, csr=REQUESTS[what](key))
            mark = daemon.mark
            assert isinstance(peer.ask(wrong), Refused)
            refused_request(daemon, mark, peer, who)
            right = peer.request(who, key, deployment=deployment)
            assert isinstance(peer.ask(right), Issued)
        still_serves(siege, where)


class TestAnIdThatIsNotTheSenders:
    @responders
    @pytest.mark.req("E5", "A12")
    @pytest.mark.parametrize("what", ["ping", "acknowledgement"])
    def test_in_a(self, siege: Siege, where: str, what: str) -> None:
        daemon, _ = place(siege, where)
        who, other = Component(), Component()
        lie: Message = Ping(id=3, sender=other.id)
        if what == "acknowledgement":
            lie = other.ack(bytes(32), 1, bytes(32))
        shown = enrolled(siege, where, who)
        with caller(siege, where, shown) as peer:
            mark = daemon.mark
            answer = peer.ask(lie)
            assert isinstance(answer, Refused)
            assert answer.reason == "identity"
            self._one_line(daemon, mark, peer, shown, who)
            assert isinstance(peer.ask(Ping(id=4, sender=who.id)), Pong)
        still_serves(siege, where)

    @responders
    @pytest.mark.req("E5", "A12")
    def test_in_a_request_for_a_certificate(self, siege: Siege, where: str) -> None:
        daemon, _ = place(siege, where)
        who, other, key = Component(), Component(), keys.generate()
        with caller(siege, where, enrolled(siege, where, who)) as peer:
            asked = peer.request(other, key, deployment=siege.loot.deployment)
            mark = daemon.mark
            answer = peer.ask(asked)
            assert isinstance(answer, Refused)
            assert answer.reason == "identity"
            refused_request(daemon, mark, peer, other)

    @pytest.mark.req("E5", "A12", "G1")
    def test_in_a_ping_between_neighbours(self, siege: Siege) -> None:
        shown = shown_at(siege, "inside")
        with caller(siege, "inside", shown) as peer:
            mark = siege.inside.mark
            answer = peer.ask(Ping(id=3, sender=Component().id))
            assert isinstance(answer, Refused)
            self._one_line(siege.inside, mark, peer, shown, None)
        still_serves(siege, "inside")

    @pytest.mark.req("E5", "A12", "E2")
    def test_in_a_ping_of_a_hub(self, siege: Siege) -> None:
        with hub_at(siege, "hub port") as peer:
            mark = siege.zone.mark
            answer = peer.ask(Ping(id=3, sender=Component().id))
            assert isinstance(answer, Refused)
            self._one_line(siege.zone, mark, peer, shown_at(siege, "hub port"), None)
        still_serves(siege, "hub port")

    def _one_line(
        self, daemon: Daemon, mark: int, peer: Caller, shown: Credentials, who: Component | None
    ) -> None:
        line = one_refused(daemon, mark, peer, "alone")
        if who is not None:
            assert line["fingerprint"] == leaf_id(shown)
            assert who.id.hex() in line["expected"]


def files_of(siege: Siege) -> set[str]:
    """The names of all files of all components, but what SQLite puts beside a database."""
    names = {path.name for path in siege.site.folder.rglob("*")}
    # A file that is written anew has a name of its own for a moment.
    return {name.removeprefix(".").removesuffix(".new") for name in names} - {
        "server.db-journal",
        "server.db-wal",
        "server.db-shm",
    }


class TestNames:
    @responders
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("field", ["kind", "host", "secret"])
    def test_5000_bytes_in_a_request(self, siege: Siege, where: str, field: str) -> None:
        daemon, _ = place(siege, where)
        with caller(siege, where) as peer:
            asked = peer.request(Component(), keys.generate(), deployment=siege.loot.deployment)
            fields = msgspec.to_builtins(asked, builtin_types=(bytes,)) | {field: TOO_LONG}
            mark = daemon.mark
            ends(peer.ask_fields(FrameType.ENROL, fields))
        line = costs_one_line(siege, where, mark, peer.name, "link.closed", code="protocol_error")
        assert len(line["reason"]) < 500

    @responders
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("field", ["host", "version", "address", "trace"])
    def test_5000_bytes_in_a_registration(self, siege: Siege, where: str, field: str) -> None:
        daemon, _ = place(siege, where)
        with caller(siege, where, shown_at(siege, where)) as peer:
            mark = daemon.mark
            fields: dict[str, Any] = {"port": 1, "full": True, field: TOO_LONG}
            ends(peer.ask_fields(FrameType.REGISTER, fields))
        costs_one_line(siege, where, mark, peer.name, "link.closed", code="protocol_error")

    @pytest.mark.req("E4", "E5")
    def test_5000_bytes_in_the_address_of_a_neighbour(self, siege: Siege) -> None:
        with caller(siege, "inside", shown_at(siege, "inside")) as peer:
            mark = siege.inside.mark
            fields = {"revision": 1, "address": TOO_LONG, "port": 1}
            ends(peer.ask_fields(FrameType.PEER_HELLO, fields), CloseCode.FRAME_TOO_LARGE)
        costs_one_line(siege, "inside", mark, peer.name, "link.closed", code="frame_too_large")

    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("values", [{TOO_LONG: "1"}, {"a": TOO_LONG}], ids=["name", "value"])
    def test_5000_bytes_in_a_setting(self, siege: Siege, values: dict[str, str]) -> None:
        with hub_at(siege, "hub port") as peer:
            mark = siege.zone.mark
            ends(peer.ask_fields(FrameType.SETTINGS, {"revision": 1, "values": values}))
        costs_one_line(siege, "hub port", mark, peer.name, "link.closed", code="protocol_error")

    @pytest.mark.req("E4")
    @pytest.mark.parametrize("field", ["host", "version", "address", "observed", "status"])
    def test_5000_bytes_in_a_report(self, siege: Siege, field: str) -> None:
        """In an envelope of a hub: the envelope is refused, and the hub's link goes on."""
        row = msgspec.to_builtins(ClientRow(id=bytes(16)), builtin_types=(bytes,))
        body = msgspec.msgpack.encode({"clients": [row | {field: TOO_LONG}]})
        zone = keyring_of(siege.zone).id
        with hub_at(siege, "server") as peer:
            mark = siege.server.mark
            answer = peer.ask(
                Relay(zone=zone, proven=True, inner_type=FrameType.REPORT, inner=body)
            )
            assert isinstance(answer, Refused)
            assert answer.reason == "envelope"
            one_refused(siege.server, mark, peer, "zone server that is approved")
            assert isinstance(peer.ask(Ping(id=1, sender=bytes(range(16)))), Pong)
        still_serves(siege, "server")

    @responders
    @pytest.mark.req("E4")
    @pytest.mark.parametrize("what", NAMES)
    def test_a_client_named_like(self, siege: Siege, where: str, what: str) -> None:
        """Kept as text and shown as text, at the server too; no path, no markup, no line."""
        name = NAMES[what]
        before = files_of(siege)
        daemon, _ = place(siege, where)
        mark = daemon.mark
        who = Component()
        shown = enrolled(siege, where, who, name)
        with caller(siege, where, shown) as peer:
            # Of another network: it stands in nobody's way.
            told = Register(host=name, version=name, port=1, address="192.0.2.9", full=True)
            answer = peer.ask(told)
            assert isinstance(answer, Registered), answer
            # An address is no free text.
            wrong = peer.ask(Register(token=answer.token, address=name, port=1))
            assert isinstance(wrong, Refused)
            assert wrong.reason == "address"
            one_refused(daemon, mark, peer, "a neighbour can dial")
        until(partial(self._is_listed, siege, who.id.hex(), name))
        assert files_of(siege) - before == set()
        assert all(line["level"] != "error" for line in daemon.output.lines[mark:])
        still_serves(siege, where)

    @pytest.mark.req("E4")
    @pytest.mark.parametrize("what", NAMES)
    def test_a_neighbour_that_says_it_listens_at(self, siege: Siege, what: str) -> None:
        with caller(siege, "inside", shown_at(siege, "inside")) as peer:
            address = NAMES[what][:200]  # what fits the frame
            answer = peer.ask(PeerHello(revision=1, address=address, port=1))
            assert isinstance(answer, Refused)
        still_serves(siege, "inside")

    @pytest.mark.req("E4")
    @pytest.mark.parametrize("what", NAMES)
    def test_a_setting_named_like(self, siege: Siege, what: str) -> None:
        before = files_of(siege)
        with hub_at(siege, "hub port") as peer:
            # Revision 0 says nothing, so the settings in force stay.
            answer = peer.ask(Settings(revision=0, values={NAMES[what]: NAMES[what]}))
            assert isinstance(answer, Done)
        assert files_of(siege) - before == set()
        still_serves(siege, "hub port")

    def _is_listed(self, siege: Siege, id: str, name: str) -> bool:
        rows = {row["id"]: row for row in siege.site.api.get("clients")}
        return id in rows and rows[id]["host"] == name


def ends(answer: Message | Closed, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
    """The link has ended, for what was said on it."""
    assert isinstance(answer, Closed), answer
    assert answer.code is code


class TestAfterwards:
    def test_nobody_has_failed(self, siege: Siege) -> None:
        for daemon in (siege.server, siege.zone, siege.hub, siege.inside, siege.outside):
            assert daemon.running
            for event in ("handler.failed", "task.failed", "answer.unsendable"):
                assert daemon.lines(event) == []
