"""How many strangers may stand at the door, and who is told to come back later (E6).

A connection at rest costs about 36 KiB, a handshake 1 ms of processor time once, and a
discovery link whatever it asks for. So:

    over this bound                   the peer gets
    connections, or of one address    RETRY_AFTER, after a handshake that was spent on saying so
    handshakes in flight, or of one   the same
    discovery links of one address    the same: what it wants is known only after the handshake
    and `courtesies` such handshakes  nothing: the connection is dropped

Where handshakes are the bound, the oldest one makes way for a newcomer if its peer has let it
stand for `patience`: an honest peer needs three round trips, and who begins handshakes at many
addresses only to hold the places holds each of them no longer than that.

Everything is counted, nothing is timed but the discovery buckets; `now` is network time.
Not safe for concurrent use.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto

from agents.runtime.config import option

__all__ = ["Admission", "Buckets", "Gate", "Pass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The bounds of a port: over one of them a peer is told when to come back, or dropped."""

    connections: int = option(
        10_000,
        "Connections at once; 350 MiB at rest. A responder keeps two a chain, and short visits.",
        minimum=1,
    )
    per_address: int = option(
        250,
        "Connections of one address at once: a whole site behind one address translation.",
        minimum=1,
    )
    handshakes: int = option(
        64, "Handshakes in flight: 64 ms of work queued on one core.", minimum=1
    )
    handshakes_per_address: int = option(
        48,
        "Handshakes in flight of one address: who begins many and ends none leaves room.",
        minimum=1,
    )
    patience: float = option(
        2.0,
        "How old a handshake has to be to make way for a newcomer where all places are taken.",
        "seconds",
        minimum=0,
        maximum=3600,
    )
    courtesies: int = option(
        16, "Handshakes in flight beyond those, only to say when to come back.", minimum=0
    )
    requests: int = option(
        256, "Requests for a certificate at work at once, about 1 ms of work each.", minimum=1
    )
    send_buffer: int = option(
        256 * 1024,
        "Bytes waiting to be written to one peer, above which nothing more is read from it.",
        "bytes",
        minimum=64 * 1024,
    )
    discovery_burst: int = option(
        10, "Discovery links that one address may open in a row.", minimum=1
    )
    discovery_interval: float = option(
        60.0, "After how long it may open one more.", "seconds", minimum=0.1
    )
    addresses: int = option(
        10_000,
        "Addresses whose discovery links are counted; the longest unseen is forgotten.",
        minimum=1,
    )
    busy_retry_after: float = option(
        2.0,
        "When to come back where handshakes are the bound: that passes as fast as it came.",
        "seconds",
        minimum=0,
        maximum=3600,
    )
    full_retry_after: float = option(
        30.0,
        "When to come back where connections are the bound.",
        "seconds",
        minimum=0,
        maximum=3600,
    )


class Pass(Enum):
    """What a connection may do."""

    ENTER = auto()
    """Go on to a link."""
    COURTESY = auto()
    """Shake hands, be told when to come back, leave."""
    DROP = auto()
    """Nothing."""


class Buckets:
    """Token buckets by key: `burst` at once, then one each `interval` seconds.

    Args:
        capacity: Keys remembered. Who can use more addresses than this has a fresh bucket for
            each anyway; memory stays bounded.
    """

    def __init__(self, *, burst: int, interval: float, capacity: int) -> None:
        self._burst = burst
        self._interval = interval
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When a bucket that is not full will be; absent: it is."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take a token and return 0.0; or take none, and return the seconds until there is one."""
        full_at = max(self._full_at.get(key, now), now)
        missing = (full_at - now) / self._interval
        if missing > self._burst - 1:
            return (missing - (self._burst - 1)) * self._interval
        self._full_at[key] = full_at + self._interval
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)
        return 0.0


class Gate:
    """Counts who is inside. Every `arrive` that is no DROP has one `settled` and one `left`."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._total = 0
        self._by_address: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        """Of an address: connections inside, and handshakes in flight that may enter."""
        self._entering = 0
        self._courtesies = 0
        self._discovery = Buckets(
            burst=admission.discovery_burst,
            interval=admission.discovery_interval,
            capacity=admission.addresses,
        )

    @property
    def connections(self) -> int:
        """Connections inside, courtesies included."""
        return self._total

    def waits_for_place(self, address: str) -> bool:
        """Whether a connection of this address would enter, were one handshake less in flight."""
        return self._bound_of(address) is None and self._is_full()

    @property
    def handshakes(self) -> int:
        """Handshakes in flight, courtesies included."""
        return self._entering + self._courtesies

    def arrive(self, address: str) -> tuple[Pass, float, str]:
        """Count a connection; return what it may do, when to come back, and the bound it met."""
        bound = self.admission
        met = self._bound_of(address)
        if met is None and self._is_full():
            met = bound.busy_retry_after, f"{bound.handshakes} handshakes in flight"
        if met is not None and self._courtesies >= bound.courtesies:
            return Pass.DROP, *met
        self._total += 1
        self._by_address[address] = self._by_address.get(address, 0) + 1
        if met is not None:
            self._courtesies += 1
            return Pass.COURTESY, *met
        self._entering += 1
        self._begun[address] = self._begun.get(address, 0) + 1
        return Pass.ENTER, 0.0, ""

    def _is_full(self) -> bool:
        return self._entering >= self.admission.handshakes

    def _bound_of(self, address: str) -> tuple[float, str] | None:
        """The bound that this address meets whatever others shake hands; when to come back."""
        bound = self.admission
        if self._total >= bound.connections:
            return bound.full_retry_after, f"{bound.connections} connections"
        if self._by_address.get(address, 0) >= bound.per_address:
            return bound.full_retry_after, f"{bound.per_address} connections of one address"
        if self._begun.get(address, 0) >= bound.handshakes_per_address:
            most = bound.handshakes_per_address
            return bound.busy_retry_after, f"{most} handshakes in flight of one address"
        return None

    def settled(self, verdict: Pass, address: str) -> None:
        """Its handshake is over, however."""
        if verdict is Pass.ENTER:
            self._entering -= 1
            _take_one(self._begun, address)
        else:
            self._courtesies -= 1

    def left(self, address: str) -> None:
        """Its connection is gone."""
        self._total -= 1
        _take_one(self._by_address, address)

    def discovery(self, address: str, now: float) -> float:
        """Count a discovery link; return 0.0, or the seconds after which one is allowed."""
        return self._discovery.take(address, now)


def _take_one(counts: dict[str, int], address: str) -> None:
    """Count one less; who has none left is forgotten."""
    left = counts[address] - 1
    if left:
        counts[address] = left
    else:
        del counts[address]
