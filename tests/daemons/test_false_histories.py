"""A ledger from somebody who lies: kept out, one line, and the ledger on disk as it was.

Who is refused for his certificate makes a component ask for news, and answers as he likes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest

from pki import ledger
from pki.bundle import open_bundle
from pki.certificates import Kind
from pki.ledger import Chain
from protocol.access import LinkClass
from protocol.messages import LedgerEntries, LedgerGet
from protocol.tls import Credentials
from tests.daemons.places import still_serves
from tests.daemons.siege import Siege, knock
from tests.daemons.trap import DIALS, Lures, deceived
from tests.pki.lineage import honest
from tests.support.daemons import Daemon, Line
from tests.support.thief import ATTACKS

pytestmark = pytest.mark.sockets

Told = tuple[int, list[bytes]]
"""The number of the first entry, and the entries."""


def flipped(chain: Chain) -> Told:
    *before, last = chain.encoded
    return 0, [*before, bytes([*last[:-1], last[-1] ^ 1])]


def cut(chain: Chain) -> Told:
    *before, last = chain.encoded
    return 0, [*before, last[:-1]]


def reordered(chain: Chain) -> Told:
    first, *rest = chain.encoded
    return 0, [first, *reversed(rest)]


def forked(chain: Chain, siege: Siege) -> Told:
    """The last entry is another, signed as it should be by whoever has stolen the current root."""
    before = chain.cut(len(chain.entries) - 1)
    revoked = list(chain.revoked)
    other = ledger.make_revoke(before, revoked, siege.loot.root.key, 2_000_000_000, bytes(32))
    return 0, list(other.encoded)


FALSE: Final[Mapping[str, Callable[[Chain], Told]]] = {
    "cut in an entry": cut,
    "flipped": flipped,
    "reordered": reordered,
    "with an entry left out": lambda chain: (0, [chain.encoded[0], chain.encoded[-1]]),
    "of another place": lambda chain: (1, list(chain.encoded[1:])),
    "of another deployment": lambda chain: (chain.last.n + 1, [honest(3).encoded[1]]),
    "noise": lambda chain: (chain.last.n + 1, [bytes(range(256))]),
    "an empty entry": lambda chain: (chain.last.n + 1, [b""]),
}


@dataclass
class Historian:
    """Answers whoever asks, once; then he has nothing more to tell."""

    told: Told
    asked: list[LedgerGet] = field(default_factory=list)

    def __call__(self, question: LedgerGet) -> LedgerEntries:
        self.asked.append(question)
        first, entries = self.told
        return LedgerEntries(slot=question.slot, first=first, entries=entries)


@pytest.fixture(scope="module")
def chain(siege: Siege) -> Chain:
    (known,) = open_bundle(siege.site.bundle.read_bytes()).chains
    return known


def ledger_of(daemon: Daemon) -> dict[str, bytes]:
    """The files in which a component keeps what it knows."""
    files = {path.name: path.read_bytes() for path in daemon.state.glob("ledger*")}
    assert files
    return files


def self_signed(siege: Siege, kind: Kind) -> Credentials:
    return ATTACKS["self-signed"].forge(siege.loot, siege.part(kind))


class TestDialled:
    @pytest.mark.parametrize("dial", ["client to server", "hub to server"])
    @pytest.mark.parametrize("what", FALSE)
    @pytest.mark.req("B10", "E5")
    def test_a_history(
        self, siege: Siege, lures: Lures, chain: Chain, dial: str, what: str
    ) -> None:
        way, historian = DIALS[dial], Historian(FALSE[what](chain))
        before = ledger_of(lures.victim(way))
        shown = self_signed(siege, way.expects)
        with deceived(lures, way, shown, historian) as (victim, impostor):
            line = victim.wait("ledger.refused")
            says_who(line, impostor.address)
        assert ledger_of(victim) == before
        assert victim.lines("ledger.followed") == []
        assert historian.asked

    @pytest.mark.parametrize("dial", ["client to server", "hub to server"])
    @pytest.mark.req("B10", "E5")
    def test_a_fork(self, siege: Siege, lures: Lures, chain: Chain, dial: str) -> None:
        way, historian = DIALS[dial], Historian(forked(chain, siege))
        before = lures.victim(way).status()["ledger"]
        with deceived(lures, way, self_signed(siege, way.expects), historian) as (victim, impostor):
            line = victim.wait("ledger.forked")
            says_who(line, impostor.address)
            assert line["level"] == "error"
        assert victim.lines("ledger.followed") == []
        assert victim.status()["ledger"] == before


class TestHubPort:
    @pytest.mark.parametrize("what", FALSE)
    @pytest.mark.req("B10", "E5", "E2")
    def test_a_history(self, siege: Siege, chain: Chain, what: str) -> None:
        mark, before = siege.zone.mark, ledger_of(siege.zone)
        historian = Historian(FALSE[what](chain))
        # Discovery links of one address are rationed: each of these has its own.
        source = siege.site.address(30 + list(FALSE).index(what))
        for _ in range(2):  # refused, and asked for news
            said = knock(
                siege.site.address(2),
                siege.site.port + 1,
                role="hub",
                victim="zone-server",
                shown=self_signed(siege, Kind.HUB_TLS),
                roots=siege.roots,
                server_side=True,
                history=historian,
                source=source,
            )
            assert said.opened in (None, LinkClass.DISCOVERY)
        line = siege.zone.wait("ledger.refused", after=mark)
        assert historian.asked
        says_who(line, (source, None))
        assert ledger_of(siege.zone) == before
        still_serves(siege, "hub port")


def says_who(line: Line, address: tuple[str, int | None]) -> None:
    host, port = address
    assert line["source"] == f"{host}:{port}" if port else str(line["source"]).startswith(host)
    assert line["reason"]
    assert line["remedy"]
