"""What can be seen of a component from outside: its report, its log, what it shows at its port.

    status      <state>/status.json, as `pki show` reads it
    Logs        the JSON lines written since a moment
    handshake   a TLS handshake of our own: the certificate that a port shows now, verified
                against the roots that we choose and no other

The observer has no certificate. It shows none, says nothing after the handshake and goes: a
component takes it for a stranger that changed its mind.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL

from agents.lab.layout import Place
from agents.runtime.errors import UnavailableError
from agents.runtime.statefiles import STATUS
from pki import certificates
from pki.certificates import Facts
from protocol.tls import TLS, client_context

__all__ = ["Logs", "Shown", "handshake", "key_row", "read_date", "read_log", "status"]

Line = Mapping[str, Any]

TIMEOUT: Final = 10.0
"""Seconds for a handshake; it takes milliseconds."""
_SOURCES: Final = count()


def status(place: Place) -> dict[str, Any]:
    """The report that a component has last written; empty if it never did."""
    try:
        found = json.loads((place.state / STATUS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    assert isinstance(found, dict)
    return found


def key_row(report: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The key of a kind in a report; empty if it has none."""
    for row in report.get("keys", ()):
        if row["kind"] == kind:
            return dict(row)
    return {}


def read_date(text: str) -> datetime:
    """Read a date of a report."""
    return datetime.fromisoformat(text)


class Logs:
    """The lines that components have written since this was made.

    Args:
        places: whose.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._since = {place.log: _size(place.log) for place in places}

    def lines(self, place: Place, event: str = "", **fields: object) -> list[Line]:
        """The whole lines of one component with this event and these values of fields."""
        return [
            line
            for line in _lines(place.log, self._since.get(place.log, 0))
            if (not event or line.get("event") == event)
            and all(line.get(name) == value for name, value in fields.items())
        ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_log(path: Path, event: str = "") -> list[Line]:
    """Every whole line of a log file, or those with one event."""
    return [line for line in _lines(path, 0) if not event or line["event"] == event]


def _lines(path: Path, start: int) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return
    for text in data.splitlines(keepends=True):
        if text.endswith(b"\n"):  # the last one may be half written
            yield json.loads(text)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a port has shown in a handshake that verified."""

    chain: tuple[bytes, ...]
    """DER, leaf first, root last."""

    @property
    def leaf(self) -> Facts:
        """Its certificate."""
        return certificates.read(self.chain[0])

    @property
    def root(self) -> Facts:
        """Where the chain ends."""
        return certificates.read(self.chain[-1])


async def handshake(address: str, port: int, roots: Sequence[bytes]) -> Shown:
    """Make a TLS handshake in which only these roots are trusted.

    Raises:
        UnavailableError: nothing answers there, or its chain ends at none of them.
    """
    # One source address a handshake: the listeners bound what one address may do.
    source = f"127.0.8.{next(_SOURCES) % 250 + 1}"
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(
                address, port, local_addr=(source, 0), limit=1 << 16
            )
            try:
                chain = await _shake(reader, writer, client_context(None, roots))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError) as exc:
        raise UnavailableError(f"{address}:{port} does not answer: {exc}") from exc
    return Shown(chain)


async def _shake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: SSL.Context
) -> tuple[bytes, ...]:
    tls = TLS(context, server_side=False)
    while True:
        writer.write(tls.data_to_send())
        if tls.failure is not None:
            raise UnavailableError(f"refused by us: {tls.failure}")
        if tls.handshake_done:
            return tls.verified_chain()
        data = await reader.read(1 << 16)
        if not data:
            raise UnavailableError("it closed the connection during the handshake")
        tls.receive(data)
