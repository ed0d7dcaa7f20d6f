"""Peers that connect and say nothing, or next to nothing: they cost others nothing for long."""

import resource
import select
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

import pytest

from agents.runtime.remedies import REMEDIES
from protocol.codec import encode
from protocol.messages import Hello
from protocol.tls import discovery_context
from tests.daemons.places import PORTS, TLS_SERVERS, call, place, still_serves
from tests.daemons.raw import Raw
from tests.daemons.siege import Siege

pytestmark = pytest.mark.sockets

ports = pytest.mark.parametrize("where", PORTS)
tls_servers = pytest.mark.parametrize("where", TLS_SERVERS)

THOUSAND = 1000
HELLO_BYTES = b"\x16\x03\x01\x02\x00" + bytes(25)
SOURCES = range(70, 80)


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """As many open files as four thousand connections take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * len(PORTS) * THOUSAND
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestHalfOpen:
    @ports
    @pytest.mark.req("E4", "E6")
    def test_a_thousand_of_one_address_shut_nobody_out(self, siege: Siege, where: str) -> None:
        with ExitStack() as stack:
            for _ in range(THOUSAND):
                stack.enter_context(call(siege, where, source=66))
            still_serves(siege, where)
        still_serves(siege, where)

    @pytest.mark.req("E4", "E5", "E6")
    def test_a_thousand_of_ten_addresses_that_send_a_byte_a_second(self, siege: Siege) -> None:
        """On every port at once: each is ended, with a line, and the port serves as before."""
        marks = {where: place(siege, where)[0].mark for where in PORTS}
        with ExitStack() as stack:
            waiting = {
                where: [
                    stack.enter_context(call(siege, where, source=SOURCES[n % len(SOURCES)]))
                    for n in range(THOUSAND)
                ]
                for where in PORTS
            }
            names = {
                where: {sock.getsockname() for sock in socks} for where, socks in waiting.items()
            }
            trickle([sock for socks in waiting.values() for sock in socks])
        for where in PORTS:
            daemon, _ = place(siege, where)
            lines = [
                line
                for line in daemon.output.lines[marks[where] :]
                if tuple(line.get("remote", ())) in names[where] and line["level"] == "warning"
            ]
            assert Counter(tuple(line["remote"]) for line in lines) == Counter(names[where])
            reasons = {line["reason"] for line in lines}
            assert {"handshake_timeout"} < reasons <= {"handshake_timeout", "dropped"}
            assert all(line["remedy"] == REMEDIES[line["reason"]] for line in lines)
            still_serves(siege, where)


def trickle(socks: Sequence[socket.socket]) -> None:
    """Send a byte of a hello a second on each, until the other side has ended them all."""
    left = {sock.fileno(): sock for sock in socks}
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    for byte in HELLO_BYTES:
        for sock in left.values():
            with suppress(ConnectionError):
                sock.send(bytes([byte]))
        while ready := poll.poll(1000):
            for fd, _ in ready:
                if ended(left[fd]):
                    poll.unregister(fd)
                    del left[fd]
            if not left:
                return
    raise AssertionError(f"{len(left)} connections were not ended")


def ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(65536)
    except ConnectionError:
        return True


class TestSlowFrames:
    @tls_servers
    @pytest.mark.req("E4")
    def test_one_who_is_slow_is_served_like_others(self, siege: Siege, where: str) -> None:
        """His frame comes in a dozen records of one byte."""
        daemon, _ = place(siege, where)
        mark = daemon.mark
        with call(siege, where, source=205) as sock:
            stranger = Raw(sock, discovery_context())
            for byte in encode(Hello(link="discovery")):
                stranger.send(bytes([byte]))
            daemon.wait(
                "link.opened", after=mark, remote=list(sock.getsockname()), link_class="discovery"
            )
