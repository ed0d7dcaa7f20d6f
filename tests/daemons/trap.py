"""What a component is made to dial, and the components that can be made to dial it.

client ──► server            hub ──► server         the trap is the TLS server
client ──► its neighbour     (a ghost that is registered where the trap is)
hub ──► zone server          the trap is the TLS client
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from agents.runtime.remedies import REMEDIES
from pki.certificates import Kind
from protocol.access import LinkClass
from protocol.messages import LedgerEntries, LedgerGet, Register, Registered
from protocol.tls import Credentials
from tests.daemons.caller import Caller
from tests.daemons.siege import Siege, Talk, make_link, nothing_new, talk
from tests.support.daemons import Daemon, Line
from tests.support.nursery import PATIENCE
from tests.support.thief import Part, mint

__all__ = ["DIALS", "Dial", "Impostor", "Lures", "Trap", "deceived", "lured", "the_one_line"]

TRAP: Final = 200
"""Host of the trap in the site's network."""
VICTIM: Final = 20
"""Host of the client that is made to dial; the trap is the next in its line."""


class Ghost:
    """A client that exists for its responder only: it registers, at an address of another."""

    def __init__(self, siege: Siege, address: str, port: int) -> None:
        part = siege.part(Kind.CLIENT_TLS, siege.server)
        self.part = Part(part.kind, bytes(range(100, 116)), part.issuer, part.responder)
        self._siege = siege
        self._told = Register(host="ghost", version="1", port=port, address=address, full=True)
        self._token = b""

    def register(self) -> None:
        """Be present, and so the neighbour of whoever stands beside that address."""
        siege, part = self._siege, self.part
        shown = mint(part.issuer, part.kind, part.id, deployment=siege.loot.deployment)
        with socket.create_connection((siege.site.address(1), siege.site.port)) as sock:
            told = Register(
                host=self._told.host,
                version=self._told.version,
                port=self._told.port,
                address=self._told.address,
                full=True,
                token=self._token,
            )
            answer = Caller(sock, shown, siege.roots).ask(told)
        assert isinstance(answer, Registered), answer
        self._token = answer.token


@dataclass(frozen=True)
class Dial:
    """One way in which a component dials."""

    victim: str
    """Its role."""
    expects: Kind
    kind: str
    """What its log calls the link."""
    server_side: bool = True
    """Whether who is dialled is the TLS server."""


DIALS: Final[Mapping[str, Dial]] = {
    "client to server": Dial("client", Kind.SERVER_TLS, "client to {}"),
    "client to zone server": Dial("client", Kind.ZONE_SERVER_TLS, "client to {}"),
    "hub to server": Dial("hub", Kind.SERVER_TLS, "hub to {}"),
    "client to client": Dial("client", Kind.CLIENT_TLS, "client to client"),
    "hub to zone server": Dial("hub", Kind.ZONE_SERVER_TLS, "hub to zone server", False),
}


class Trap:
    """Waits where somebody will dial, and treats each connection in the same way."""

    def __init__(self, address: tuple[str, int], treat: Callable[[socket.socket], None]) -> None:
        self.address = address
        self.failures: list[Exception] = []
        self.visits = 0
        self._treat = treat
        self._came = threading.Condition()
        self._socket = socket.create_server(address)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop waiting, and let what is under way come to its end."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            with sock:
                try:
                    self._treat(sock)
                except Exception as exc:  # a test looks at them
                    self.failures.append(exc)
            self.visits += 1


class Impostor(Trap):
    """Speaks the protocol in another's name, believes everybody, and notes what he is shown."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        role: str,
        victim: str,
        shown: Credentials,
        roots: tuple[bytes, ...],
        server_side: bool,
        history: Callable[[LedgerGet], LedgerEntries] = nothing_new,
    ) -> None:
        self.talks: list[Talk] = []

        def note(sock: socket.socket) -> None:
            link = make_link(shown, roots, role=role, victim=victim, server_side=server_side)
            self.talks.append(talk(sock, link, asks=False, history=history))

        super().__init__(address, note)

    def was_shown_nothing(self, *, certified: bool) -> None:
        """No message but the question for the ledger, which tells nothing.

        A certificate neither, with two exceptions that TLS 1.2 makes: its server shows its own
        before it sees one, and its client shows its own to whoever holds a key that a root of
        ours has `certified`, before dates and roles are looked at.
        """
        assert self.failures == []
        assert self.talks
        for said in self.talks:
            assert {type(message) for message in said.heard} <= {LedgerGet}
            if not certified:
                assert said.opened in (None, LinkClass.DISCOVERY)
                assert said.closed is not None
                assert said.closed.shown_chain == ()


class Lures:
    """The components that are made to dial: they hold certificates, and are stopped."""

    def __init__(self, siege: Siege) -> None:
        site = siege.site
        self.siege = siege
        self.ports = {
            "server": site.port + 4,
            "hub port": site.port + 5,
            "client": site.port + 6,
        }
        self.ghost = Ghost(siege, site.address(VICTIM + 1), self.ports["client"])
        client = site.add_client("lured", VICTIM).launch()
        hub = site.add_hub("lured-hub", "127.0.0.1:9").launch()
        site.approve("hub")
        client.wait("key.activated")
        hub.wait("key.activated")
        assert client.stop() == 0
        assert hub.stop() == 0
        self._victims = {"client": client, "hub": hub}

    def victim(self, dial: Dial) -> Daemon:
        """Who dials."""
        return self._victims[dial.victim]

    def part(self, dial: Dial) -> Part:
        """Whom this dial expects."""
        if dial.expects is Kind.CLIENT_TLS:
            return self.ghost.part
        return self.siege.part(dial.expects)

    def honest(self, dial: Dial) -> Credentials:
        """What it would believe."""
        part = self.part(dial)
        return mint(part.issuer, part.kind, part.id, deployment=self.siege.loot.deployment)

    def address(self, dial: Dial) -> tuple[str, int]:
        """Where the trap for this dial is."""
        site = self.siege.site
        if dial.expects is Kind.CLIENT_TLS:
            return site.address(VICTIM + 1), self.ports["client"]
        return site.address(TRAP), self.ports["server" if dial.server_side else "hub port"]

    @contextmanager
    def dialling(self, dial: Dial) -> Iterator[Daemon]:
        """The victim, running, and made to dial the trap."""
        host, port = self.address(dial)
        site, victim = self.siege.site, self.victim(dial)
        server, there = f"{site.address(1)}:{site.port}", f"{host}:{port}"
        if dial.expects is Kind.CLIENT_TLS:
            self.ghost.register()
            victim.configure(servers=[server])
        elif dial.victim == "client":
            victim.configure(servers=[there])
        elif dial.server_side:
            victim.configure(server=there, zone_servers=["127.0.0.1:9"])
        else:
            victim.configure(server=server, zone_servers=[there])
        victim.launch()
        try:
            if dial.expects is Kind.CLIENT_TLS and not victim.wait("chain.placed")["forward"]:
                # While the victim was away its neighbour was the ghost's, and has told of its loss.
                self.ghost.register()
            yield victim
        finally:
            assert victim.stop() == 0


@contextmanager
def deceived(
    lures: Lures,
    dial: Dial,
    shown: Credentials,
    history: Callable[[LedgerGet], LedgerEntries] = nothing_new,
) -> Iterator[tuple[Daemon, Impostor]]:
    """A victim that dials somebody who poses as whom it expects."""
    role = dial.expects.value.removesuffix("-tls")
    with (
        Impostor(
            lures.address(dial),
            role=role,
            victim=dial.victim,
            shown=shown,
            roots=lures.siege.roots,
            server_side=dial.server_side,
            history=history,
        ) as impostor,
        lures.dialling(dial) as victim,
    ):
        yield victim, impostor


@contextmanager
def lured(
    lures: Lures, dial: Dial, treat: Callable[[socket.socket], None]
) -> Iterator[tuple[Daemon, Trap]]:
    """A victim that dials a trap, over and over."""
    with Trap(lures.address(dial), treat) as trap, lures.dialling(dial) as victim:
        yield victim, trap


def the_one_line(victim: Daemon, dial: Dial, trap: Trap, **fields: Any) -> Line:  # noqa: ANN401
    """The line of the first link to the trap: which, whose key, what was expected, what to do."""
    host, port = trap.address
    line = victim.wait("link.refused", remote=[host, port], **fields)
    assert line["kind"] == dial.kind.format(f"{host}:{port}")
    assert line["link"]
    assert line["expected"]
    assert line["got"]
    assert line["remedy"] == REMEDIES[line["reason"]]
    assert len(victim.lines("link.refused", link=line["link"])) == 1
    assert victim.lines("link.opened", link=line["link"]) == []
    return line
