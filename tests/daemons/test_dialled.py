"""Whoever is dialled may be anybody: what he does costs the dialler that link, and a line.

A client, a hub and a client that dials its neighbour are made to dial somebody who speaks no TLS,
another version of it, or who has the right certificate and breaks every rule.
"""

import socket

import pytest

from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.messages import Refused
from protocol.tls import client_context, server_context
from tests.daemons.raw import (
    FRAMES,
    HANDSHAKE,
    NO_TLS,
    VERSIONS,
    Raw,
    answers_in,
    frame,
    loose_context,
    speaks_only,
    wait_for_end,
)
from tests.daemons.resumption import Resumer
from tests.daemons.siege import Siege, until
from tests.daemons.trap import DIALS, Lures, lured, the_one_line
from tests.fuzz.names import TOO_LONG

pytestmark = pytest.mark.sockets

dials = pytest.mark.parametrize("dial", DIALS)


class TestNoTLS:
    @dials
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("what", NO_TLS)
    def test_is_refused(self, lures: Lures, dial: str, what: str) -> None:
        def treat(sock: socket.socket) -> None:
            sock.sendall(NO_TLS[what])
            wait_for_end(sock)

        with lured(lures, DIALS[dial], treat) as (victim, trap):
            the_one_line(victim, DIALS[dial], trap, fingerprint="-", by_peer=False)

    @dials
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("version", VERSIONS)
    def test_another_version_only(self, lures: Lures, dial: str, version: str) -> None:
        def treat(sock: socket.socket) -> None:
            assert speak(sock, version)[:1] == b"\x15"

        speak = answers_in if DIALS[dial].server_side else speaks_only
        with lured(lures, DIALS[dial], treat) as (victim, trap):
            the_one_line(victim, DIALS[dial], trap, reason="protocol_error", by_peer=False)
        assert trap.failures == []


class TestOneWithTheRightKey:
    """He proves himself, and then says what nobody may say."""

    @dials
    @pytest.mark.req("E4", "E5", "E1")
    @pytest.mark.parametrize("what", FRAMES)
    def test_frames(self, siege: Siege, lures: Lures, dial: str, what: str) -> None:
        data, code = FRAMES[what]
        if what == "of another link" and dial == "hub to zone server":
            data = frame(FrameType.REGISTER, b"\x80")
        self._costs_the_link(siege, lures, dial, data, code)

    @dials
    @pytest.mark.req("E4", "E5")
    def test_5000_bytes_in_a_text(self, siege: Siege, lures: Lures, dial: str) -> None:
        body = encode(Refused(reason="x", text="y"))[5:].replace(b"\xa1y", b"\xda\x13\x88")
        data = frame(FrameType.REFUSED, body + TOO_LONG.encode())
        self._costs_the_link(siege, lures, dial, data, CloseCode.FRAME_TOO_LARGE)

    @dials
    @pytest.mark.req("E4", "E5", "B4")
    def test_a_second_handshake(self, siege: Siege, lures: Lures, dial: str) -> None:
        def treat(sock: socket.socket) -> None:
            context = loose_context(shown, siege.roots)
            peer = Raw(sock, context, server_side=DIALS[dial].server_side)
            assert HANDSHAKE not in peer.renegotiate()

        shown = lures.honest(DIALS[dial])
        with lured(lures, DIALS[dial], treat) as (victim, trap):
            line = the_one_line(victim, DIALS[dial], trap, reason="protocol_error")
            assert "renegotiation" in line["got"]
        assert trap.failures == []

    @dials
    @pytest.mark.req("B4")
    def test_a_session_is_not_resumed(self, siege: Siege, lures: Lures, dial: str) -> None:
        """Whoever is dialled twice gives tickets, or comes with a session of the first time."""
        way = DIALS[dial]
        resumer = Resumer.of(lures.honest(way), siege.roots, server_side=way.server_side)
        with lured(lures, way, resumer.meet) as (_, trap):
            until(lambda: len(resumer.reused) > 1)
        assert trap.failures == []
        assert not any(resumer.reused)

    def _costs_the_link(
        self, siege: Siege, lures: Lures, dial: str, data: bytes, code: CloseCode
    ) -> None:
        told: list[CloseCode] = []

        def treat(sock: socket.socket) -> None:
            server_side = DIALS[dial].server_side
            context = (server_context if server_side else client_context)(shown, siege.roots)
            peer = Raw(sock, context, server_side=server_side)
            peer.send(data)
            told.append(peer.close_code())

        shown = lures.honest(DIALS[dial])
        with lured(lures, DIALS[dial], treat) as (victim, trap):
            the_one_line(victim, DIALS[dial], trap, reason=code.name.lower(), by_peer=False)
        assert trap.failures == []
        assert set(told) == {code}
