"""Bytes that are no link of ours, on every port: one line each, and the port goes on serving."""

import msgpack
import pytest

from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.messages import Hello
from protocol.tls import client_context, discovery_context, server_context
from tests.daemons.places import (
    PORTS,
    TLS_SERVERS,
    call,
    costs_one_line,
    place,
    shown_at,
    still_serves,
    warnings,
)
from tests.daemons.raw import (
    ALERT,
    FRAMES,
    HANDSHAKE,
    NO_TLS,
    VERSIONS,
    Raw,
    answers_in,
    frame,
    loose_context,
    nested,
    speaks_only,
    wait_for_end,
)
from tests.daemons.siege import Siege

pytestmark = pytest.mark.sockets

ports = pytest.mark.parametrize("where", PORTS)
tls_servers = pytest.mark.parametrize("where", TLS_SERVERS)


class TestNoTLS:
    @ports
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("what", NO_TLS)
    def test_is_refused(self, siege: Siege, where: str, what: str) -> None:
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where) as sock:
            own = sock.getsockname()
            sock.sendall(NO_TLS[what])
            wait_for_end(sock)
        costs_one_line(siege, where, mark, own, fingerprint="-")

    @ports
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("version", VERSIONS)
    def test_another_version_only(self, siege: Siege, where: str, version: str) -> None:
        """At the hub port, who dials is the TLS server, and picks the version."""
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where) as sock:
            own = sock.getsockname()
            said = (answers_in if where == "hub port" else speaks_only)(sock, version)
        assert said[:1] == ALERT  # and no certificate
        line = costs_one_line(siege, where, mark, own, reason="protocol_error", fingerprint="-")
        assert "protocol" in line["got"] or "extension" in line["got"]


HELLO = encode(Hello(link="discovery"))

BEFORE_HELLO = {
    "unknown type": (frame(0xEE, b"\x80"), CloseCode.UNKNOWN_FRAME),
    "of a member link": (frame(FrameType.REGISTER, b"\x80"), CloseCode.NOT_ALLOWED),
    "of an enrolment link": (frame(FrameType.ENROL, b"\x80"), CloseCode.NOT_ALLOWED),
    "too large": (frame(FrameType.HELLO, b"", length=1 << 31), CloseCode.FRAME_TOO_LARGE),
    "deeply nested": (frame(FrameType.HELLO, nested(60)), CloseCode.PROTOCOL_ERROR),
    "no message": (frame(FrameType.HELLO, b"\xc1"), CloseCode.PROTOCOL_ERROR),
    "another class": (
        frame(FrameType.HELLO, msgpack.packb({"link": "member"})),
        CloseCode.PROTOCOL_ERROR,
    ),
    "another version": (encode(Hello(link="discovery", version=99)), CloseCode.WRONG_VERSION),
}
"""What a stranger says first, and what he is told."""

AFTER_HELLO = {
    "unknown type": (frame(0xEE, b"\x80"), CloseCode.UNKNOWN_FRAME),
    "hello again": (HELLO, CloseCode.NOT_ALLOWED),
    "of a member link": (frame(FrameType.REGISTER, b"\x80"), CloseCode.NOT_ALLOWED),
    "of an enrolment link": (frame(FrameType.ENROL, b"\x80"), CloseCode.NOT_ALLOWED),
    "an order": (frame(FrameType.HEAD_NOTICE, b"\x80"), CloseCode.NOT_ALLOWED),
    "too large": (frame(FrameType.LEDGER_GET, b"", length=1 << 20), CloseCode.FRAME_TOO_LARGE),
    "incomplete": (frame(FrameType.LEDGER_GET, b"\x80"), CloseCode.PROTOCOL_ERROR),
}
"""What a stranger says on a discovery link, and what he is told."""


class TestFrames:
    @tls_servers
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("what", BEFORE_HELLO)
    def test_before_hello(self, siege: Siege, where: str, what: str) -> None:
        data, code = BEFORE_HELLO[what]
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where) as sock:
            own = sock.getsockname()
            stranger = Raw(sock, discovery_context())
            stranger.send(data)
            assert stranger.close_code() is code
        costs_one_line(siege, where, mark, own, reason=code.name.lower(), fingerprint="-")

    @tls_servers
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("what", AFTER_HELLO)
    def test_on_a_discovery_link(self, siege: Siege, where: str, what: str) -> None:
        data, code = AFTER_HELLO[what]
        daemon, _ = place(siege, where)
        mark = daemon.mark
        # Discovery links of one address are rationed: each of these has its own.
        number = len(PORTS) * list(AFTER_HELLO).index(what) + PORTS.index(where)
        with call(siege, where, source=210 + number) as sock:
            own = sock.getsockname()
            stranger = Raw(sock, discovery_context())
            stranger.send(HELLO + data)
            assert stranger.close_code() is code
        costs_one_line(siege, where, mark, own, "link.closed", code=code.name.lower())

    @ports
    @pytest.mark.req("E4", "E5", "E1")
    @pytest.mark.parametrize("what", FRAMES)
    def test_on_a_member_link(self, siege: Siege, where: str, what: str) -> None:
        """A client in order, or a hub, that says what nobody may say, or only another."""
        data, code = FRAMES[what]
        daemon, _ = place(siege, where)
        mark, hub = daemon.mark, where == "hub port"
        context = (server_context if hub else client_context)(shown_at(siege, where), siege.roots)
        with call(siege, where) as sock:
            own = sock.getsockname()
            peer = Raw(sock, context, server_side=hub)
            peer.send(data)
            assert peer.close_code() is code
        costs_one_line(siege, where, mark, own, "link.closed", code=code.name.lower())

    @tls_servers
    @pytest.mark.req("E4")
    def test_an_end_in_the_middle_is_no_refusal(self, siege: Siege, where: str) -> None:
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where) as sock:
            own = sock.getsockname()
            stranger = Raw(sock, discovery_context())
            stranger.send(HELLO[:-1])
        still_serves(siege, where)
        assert warnings(daemon, mark, own) == []


class TestRenegotiation:
    """Whoever asks for a second handshake on a connection has had his last."""

    @ports
    @pytest.mark.req("E4", "E5", "B4")
    def test_of_a_member(self, siege: Siege, where: str) -> None:
        """By a CLIENT HELLO, or at the hub port by a HELLO REQUEST."""
        daemon, _ = place(siege, where)
        mark, hub = daemon.mark, where == "hub port"
        with call(siege, where) as sock:
            own = sock.getsockname()
            context = loose_context(shown_at(siege, where), siege.roots)
            peer = Raw(sock, context, server_side=hub)
            assert HANDSHAKE not in peer.renegotiate()
        line = costs_one_line(siege, where, mark, own, "link.closed", code="protocol_error")
        assert "renegotiation" in line["reason"]

    @tls_servers
    @pytest.mark.req("E4", "E5")
    def test_of_a_stranger(self, siege: Siege, where: str) -> None:
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where) as sock:
            own = sock.getsockname()
            assert HANDSHAKE not in Raw(sock, loose_context(None, ())).renegotiate()
        line = costs_one_line(siege, where, mark, own, reason="protocol_error", fingerprint="-")
        assert "renegotiation" in line["got"]


class TestAfterwards:
    def test_nobody_has_failed(self, siege: Siege) -> None:
        for daemon in (siege.server, siege.zone, siege.hub, siege.inside, siege.outside):
            assert daemon.running
            for event in ("handler.failed", "task.failed", "answer.unsendable"):
                assert daemon.lines(event) == []
