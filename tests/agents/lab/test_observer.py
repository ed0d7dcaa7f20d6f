import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agents.lab.layout import Place
from agents.lab.observer import Logs, handshake, key_row, read_log, status
from agents.runtime.errors import UnavailableError
from protocol.tls import TLS, server_context
from tests.support.certs import Authority


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place("client-01", "client", tmp_path / "c", tmp_path / "c.log", "127.0.1.11", 1)
    place.prepare()
    return place


def write(place: Place, *lines: dict[str, object], tail: str = "") -> None:
    with place.log.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.write(tail)


def test_no_report_yet(place: Place) -> None:
    assert status(place) == {}
    assert key_row(status(place), "client-tls") == {}


def test_a_report(place: Place) -> None:
    (place.state / "status.json").write_text('{"keys": [{"kind": "client-tls", "serial": "5"}]}')
    assert key_row(status(place), "client-tls")["serial"] == "5"


def test_only_lines_since_then_count(place: Place) -> None:
    write(place, {"event": "link.refused", "fingerprint": "aa"})
    logs = Logs([place])
    assert logs.lines(place) == []
    write(place, {"event": "link.refused", "fingerprint": "bb"}, {"event": "link.opened"})
    assert logs.lines(place, "link.refused") == [{"event": "link.refused", "fingerprint": "bb"}]
    assert logs.lines(place, "link.refused", fingerprint="aa") == []


def test_a_half_written_line_is_not_read(place: Place) -> None:
    logs = Logs([place])
    write(place, {"event": "a.b"}, tail='{"event": "li')
    assert [line["event"] for line in logs.lines(place)] == ["a.b"]
    assert [line["event"] for line in read_log(place.log, "a.b")] == ["a.b"]


def test_a_log_that_is_not_there_has_no_lines(place: Place) -> None:
    assert Logs([place]).lines(place) == []


class Port:
    """Shows a certificate to whoever connects, or ends the connection when it is asked to."""

    def __init__(self, root: Authority | None) -> None:
        self.context = server_context(root.issue("client"), [root.der]) if root else None
        self.served: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served.append(writer)
        tls = None if self.context is None else TLS(self.context, server_side=True)
        while data := await reader.read(1 << 16):  # what is not read would become a reset
            if tls is None:
                break
            tls.receive(data)
            writer.write(tls.data_to_send())
        writer.close()

    async def gone(self) -> None:
        """Wait until every connection is no more: the loop ends right afterwards."""
        for writer in self.served:
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def listening(root: Authority | None) -> AsyncIterator[int]:
    port = Port(root)
    server = await asyncio.start_server(port.serve, "127.0.7.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await port.gone()


@pytest.mark.sockets
async def test_a_handshake_verifies_against_the_chosen_roots_only() -> None:
    root, other = Authority(), Authority("server.test Root 1")
    async with listening(root) as port:
        shown = await handshake("127.0.7.1", port, [other.der, root.der])
        assert shown.chain[-1] == root.der
        with pytest.raises(UnavailableError, match="refused by us"):
            await handshake("127.0.7.1", port, [other.der])


@pytest.mark.sockets
async def test_nobody_answers() -> None:
    async with listening(None) as port:
        with pytest.raises(UnavailableError, match="during the handshake"):
            await handshake("127.0.7.1", port, [Authority().der])
    with pytest.raises(UnavailableError, match="does not answer"):
        await handshake("127.0.7.1", port, [Authority().der])
