"""Bytes that are no link of ours, on every port: one line each, and the port goes on serving."""

import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest
from OpenSSL import SSL

from agents.runtime.dialer import DialError
from agents.runtime.opening import Opening
from agents.runtime.remedies import REMEDIES
from pki.certificates import Kind
from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.messages import Hello
from protocol.tls import client_context, discovery_context
from tests.daemons.siege import Siege, besiege, knock
from tests.support.daemons import Daemon, Line, Site
from tests.support.light import LightClient, shifted
from tests.support.links import on_uvloop
from tests.support.logs import logged
from tests.support.nursery import PATIENCE
from tests.support.thief import leaf_id, mint

pytestmark = pytest.mark.sockets

PORTS = ("server", "zone", "inside", "hub port")
ports = pytest.mark.parametrize("where", PORTS)
tls_servers = pytest.mark.parametrize("where", PORTS[:3])


@pytest.fixture(scope="module")
def siege(make_site: Callable[[], Site]) -> Siege:
    return besiege(make_site())


def place(siege: Siege, where: str) -> tuple[Daemon, tuple[str, int]]:
    """Who listens there, and where it is."""
    daemon = siege.zone if where == "hub port" else getattr(siege, where)
    host = {"server": 1, "zone": 2, "hub port": 2, "inside": 11}[where]
    port = siege.site.port + (where == "hub port")
    return daemon, (siege.site.address(host), port)


def one_line(
    daemon: Daemon, mark: int, event: str, sock: tuple[str, int], **fields: object
) -> Line:
    """The one line about the connection from this address."""
    remote = [sock[0], sock[1]]
    line = daemon.wait(event, after=mark, remote=remote)
    for name, value in fields.items():
        assert line[name] == value, line
    assert line["kind"]
    return line


def wait_for_end(sock: socket.socket) -> bytes:
    """Read until the other side has closed."""
    sock.settimeout(PATIENCE)
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def still_serves(siege: Siege, where: str) -> None:
    """Somebody in order is served on the same port."""
    responder = siege.zone if where == "zone" else siege.server
    part = siege.part(Kind.CLIENT_TLS, responder)
    shown = mint(part.issuer, part.kind, bytes(range(16)), deployment=siege.loot.deployment)
    _, (host, port) = place(siege, where)
    victim = "client" if where == "inside" else "server"
    talk = knock(host, port, role="client", victim=victim, shown=shown, roots=siege.roots)
    assert talk.closed is None


class TestNoTLS:
    @ports
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.0\r\n\r\n",
            bytes(100),
            b"\x16\x03\x01\xff\xff" + bytes(range(256)) * 40,
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
            b"\x15\x03\x03\x00\x02\x02\xff",
        ],
        ids=["http", "zeros", "huge record", "empty client hello", "alert"],
    )
    def test_is_refused(self, siege: Siege, where: str, data: bytes) -> None:
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.create_connection(address) as sock:
            sock.sendall(data)
            own = sock.getsockname()
            wait_for_end(sock)
        line = one_line(daemon, mark, "link.refused", own, fingerprint="-")
        assert line["expected"]
        assert line["got"]
        assert line["remedy"] == REMEDIES[str(line["reason"])]
        if where != "hub port":
            still_serves(siege, where)

    @tls_servers
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("version", ["1.1", "1.3"])
    def test_another_version_only(self, siege: Siege, where: str, version: str) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        number = {"1.1": SSL.TLS1_1_VERSION, "1.3": SSL.TLS1_3_VERSION}[version]
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            connection.do_handshake()
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.create_connection(address) as sock:
            sock.sendall(connection.bio_read(65536))
            own = sock.getsockname()
            alert = wait_for_end(sock)
        assert alert[:1] == b"\x15"  # an alert, and no certificate
        line = one_line(daemon, mark, "link.refused", own, reason="protocol_error")
        assert "protocol" in line["got"]
        still_serves(siege, where)


class Stranger:
    """TLS as it should be, and then whatever bytes."""

    def __init__(self, sock: socket.socket, context: SSL.Context) -> None:
        sock.settimeout(PATIENCE)
        self._sock = sock
        self._tls = SSL.Connection(context, None)
        self._tls.set_connect_state()
        while True:
            try:
                self._tls.do_handshake()
                break
            except SSL.WantReadError:
                self._flush()
                self._tls.bio_write(sock.recv(65536))
        self._flush()

    def send(self, data: bytes) -> None:
        self._tls.sendall(data)
        self._flush()

    def close_code(self) -> CloseCode:
        """The code of the CLOSE frame that comes before the end."""
        self._tls.bio_write(wait_for_end(self._sock))
        data = b""
        try:
            while True:
                data += self._tls.recv(65536)
        except SSL.Error:
            pass
        last: CloseCode | None = None
        while data:
            size = int.from_bytes(data[:4])
            if data[4] == FrameType.CLOSE:
                last = CloseCode(msgpack.unpackb(data[5 : 5 + size])["code"])
            data = data[5 + size :]
        assert last is not None
        return last

    def _flush(self) -> None:
        try:
            while True:
                self._sock.sendall(self._tls.bio_read(65536))
        except SSL.WantReadError:
            return


def frame(number: int, body: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">IB", len(body) if length is None else length, number) + body


def nested(depth: int) -> bytes:
    return b"\x81\xa4link" + b"\x91" * depth + b"\xc0"


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
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.create_connection(address) as sock:
            own = sock.getsockname()
            stranger = Stranger(sock, discovery_context())
            stranger.send(data)
            assert stranger.close_code() is code
        line = one_line(daemon, mark, "link.refused", own, reason=code.name.lower())
        assert line["remedy"] == REMEDIES[code.name.lower()]
        still_serves(siege, where)

    @tls_servers
    @pytest.mark.req("E4", "E5")
    @pytest.mark.parametrize("what", AFTER_HELLO)
    def test_on_a_discovery_link(self, siege: Siege, where: str, what: str) -> None:
        data, code = AFTER_HELLO[what]
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.socket() as sock:
            # Discovery links of one address are rationed: each of these has its own.
            number = len(PORTS) * list(AFTER_HELLO).index(what) + PORTS.index(where)
            sock.bind((siege.site.address(210 + number), 0))
            sock.connect(address)
            own = sock.getsockname()
            stranger = Stranger(sock, discovery_context())
            stranger.send(HELLO + data)
            assert stranger.close_code() is code
        line = one_line(daemon, mark, "link.closed", own, code=code.name.lower())
        assert line["level"] == "warning"
        assert line["remedy"] == REMEDIES[code.name.lower()]
        assert not line["by_peer"]
        still_serves(siege, where)

    @tls_servers
    @pytest.mark.req("E4", "E5", "E1")
    def test_on_a_member_link(self, siege: Siege, where: str) -> None:
        """A client in order that says what only a hub may say."""
        responder = siege.zone if where == "zone" else siege.server
        part = siege.part(Kind.CLIENT_TLS, responder)
        shown = mint(part.issuer, part.kind, bytes(16), deployment=siege.loot.deployment)
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.create_connection(address) as sock:
            own = sock.getsockname()
            stranger = Stranger(sock, client_context(shown, siege.roots))
            stranger.send(frame(FrameType.RELAY, b"\x80"))
            assert stranger.close_code() is CloseCode.NOT_ALLOWED
        line = one_line(daemon, mark, "link.closed", own, code="not_allowed")
        assert "hostile" in line["remedy"]
        still_serves(siege, where)


class TestTime:
    @ports
    @pytest.mark.req("E4", "E6")
    def test_half_open_connections_do_not_shut_others_out(self, siege: Siege, where: str) -> None:
        _, address = place(siege, where)
        with ExitStack() as stack:
            for _ in range(300):
                sock = stack.enter_context(socket.socket())
                sock.bind((siege.site.address(66), 0))
                sock.connect(address)
            if where == "hub port":
                return
            still_serves(siege, where)

    @tls_servers
    @pytest.mark.req("E4")
    def test_a_byte_at_a_time(self, siege: Siege, where: str) -> None:
        """One who is slow is served like others: his frame comes in a hundred records."""
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.socket() as sock:
            sock.bind((siege.site.address(205), 0))
            sock.connect(address)
            own = sock.getsockname()
            stranger = Stranger(sock, discovery_context())
            for byte in HELLO:
                stranger.send(bytes([byte]))
            one_line(daemon, mark, "link.opened", own, link_class="discovery")

    @tls_servers
    @pytest.mark.req("E4")
    def test_an_end_in_the_middle_is_no_refusal(self, siege: Siege, where: str) -> None:
        daemon, address = place(siege, where)
        mark = daemon.mark
        with socket.create_connection(address) as sock:
            own = sock.getsockname()
            stranger = Stranger(sock, discovery_context())
            stranger.send(HELLO[:-1])
        still_serves(siege, where)
        said = daemon.output.lines[mark:]
        assert [line for line in said if line.get("remote") == list(own)] == []


@on_uvloop
class TestClocks:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)

    @pytest.mark.req("E7")
    @pytest.mark.parametrize(
        ("days", "code", "words"),
        [(900, CloseCode.EXPIRED, "expired"), (-400, CloseCode.CLOCK, "begins at")],
    )
    async def test_a_client_with_a_wrong_clock_is_told(
        self,
        siege: Siege,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        days: int,
        code: CloseCode,
        words: str,
    ) -> None:
        made: list[Opening] = []

        def remembered(*given: Any, **options: Any) -> Opening:  # noqa: ANN401 - handed on
            made.append(Opening(*given, **options))
            return made[-1]

        monkeypatch.setattr("agents.runtime.dialer.Opening", remembered)
        client = LightClient(siege.site, folder, clock=shifted(timedelta(days=days)))
        with logged() as lines, pytest.raises(DialError) as caught:
            await client.enrol()
        assert caught.value.code is code
        (line,) = [line for line in lines if line["event"] == "link.refused"]
        assert line["reason"] == code.name.lower()
        assert "clock" in str(line["remedy"])
        # Both readings: ours, and the date in the certificate.
        ours = client.clock.now().date().isoformat()
        assert words in str(line["got"])
        assert ours in str(line["got"])
        assert str(line["got"]).count("T") >= 2
        for opening in made:  # it says why, and then it is gone
            await opening.wire.gone
        theirs = siege.server.wait("link.refused", reason=code.name.lower(), by_peer=True)
        assert f"the peer's clock says {ours}" in theirs["got"]

    @pytest.mark.req("E7")
    async def test_the_server_names_it_too(self, siege: Siege, folder: Path) -> None:
        """A key that is not valid yet at the server: its line has both dates, the peer its time."""
        part = siege.part(Kind.CLIENT_TLS, siege.server)
        later = shifted(timedelta(days=3)).now()
        shown = mint(part.issuer, part.kind, bytes(16), deployment=siege.loot.deployment, at=later)
        host, port = siege.site.address(1), siege.site.port
        talk = knock(host, port, role="client", victim="server", shown=shown, roots=siege.roots)
        assert talk.closed is not None
        assert talk.closed.code is CloseCode.CLOCK
        now = shifted(timedelta()).now()
        assert talk.closed.time is not None
        assert abs(talk.closed.time - now.timestamp()) < 120
        line = siege.server.wait("link.refused", fingerprint=leaf_id(shown))
        assert line["reason"] == "clock"
        assert (later - timedelta(hours=1)).isoformat()[:16] in line["got"]
        assert now.date().isoformat() in line["got"]


class TestAfterwards:
    def test_nobody_has_failed(self, siege: Siege) -> None:
        for daemon in (siege.server, siege.zone, siege.hub, siege.inside, siege.outside):
            assert daemon.running
            for event in ("handler.failed", "task.failed", "answer.unsendable"):
                assert daemon.lines(event) == []
