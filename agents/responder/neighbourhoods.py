"""Who stands beside whom: the line of clients, as a pure function of who is there.

    subnet 127.0.1.0/24, members ordered by (address, port, id), lowest first

        .11  ──forward──►  .12  ──forward──►  .13  ──forward──►  .14
       leader ◄─backward──      ◄─backward──      ◄─backward──  leader
         │                                                        │
         └─────────────────────── responder ──────────────────────┘

1. The clients of one responder and one subnet form a chain (G1). A plan is made of one
   responder's members only, so a server's and a zone server's clients are never
   neighbours (G6), whatever their addresses.
2. A chain is ordered by address as a number, then port, then id: a total order, so that
   every responder and every restart draws the same line from the same members, in
   whatever order they came.
3. Forward is the next higher member, backward the next lower one; each member has at
   most one of each, and b is a's forward neighbour exactly if a is b's backward one. Of
   the two the lower one dials, so that no pair is linked twice.
4. The ends of a chain are its leaders: two, or one where a client is alone. Only they
   keep a link to the responder (G2).
5. A subnet with more members than the cap (G4) is cut into the fewest chains that obey
   it, of sizes that differ by at most one: a chain of 101 becomes 51 and 50, not 100 and
   a client alone. They are numbered from the lowest address: `127.0.1.0/24#0`, `#1`.
6. IPv6 is off by default (G1): without a prefix for it, each IPv6 client is alone. An
   IPv4 address written as IPv6 (`::ffff:127.0.1.11`) is the IPv4 address.

Who joins or leaves changes the neighbours of those beside him and of nobody else, as long
as the subnet is one chain; each cut of a longer one moves by one member at most. And
subnets do not touch each other: the plan of one subnet's members is that part of the plan
of all, so a registry may keep a plan a subnet (`subnet`) and remake only one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType
from typing import Final

__all__ = ["DEFAULT_CAP", "DEFAULT_PREFIX4", "Member", "Plan", "Policy", "Position", "plan"]

DEFAULT_PREFIX4: Final = 24
DEFAULT_CAP: Final = 100
MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Policy:
    """How a responder draws its lines.

    Raises:
        ValueError: a prefix that its protocol does not have, or a cap below 1.
    """

    prefix4: int = DEFAULT_PREFIX4
    """Length of an IPv4 subnet's prefix, 0 to 32."""
    prefix6: int | None = None
    """Length of an IPv6 subnet's prefix, 0 to 128; None: IPv6 clients have no neighbours."""
    cap: int = DEFAULT_CAP
    """The most clients of one chain, at least 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.prefix4 <= 32:
            raise ValueError(f"prefix4 {self.prefix4} is not between 0 and 32")
        if self.prefix6 is not None and not 0 <= self.prefix6 <= 128:
            raise ValueError(f"prefix6 {self.prefix6} is not between 0 and 128")
        if self.cap < 1:
            raise ValueError(f"cap {self.cap} is below 1")


@dataclass(frozen=True, slots=True)
class Member:
    """A client that may stand in a chain.

    An address is checked here and not while a plan is drawn: one client with a bad one
    must not cost the others their neighbours.

    Raises:
        ValueError: an address that is none, or a port outside 1 to 65535.
    """

    id: bytes
    """Component id, 16 bytes."""
    address: str
    """Where its neighbours reach it: an IPv4 or IPv6 address, no name."""
    port: int
    """The port on which it listens for its backward neighbour."""
    place: tuple[int, int, int, bytes] = field(init=False, repr=False, compare=False)
    """Its place in the total order: version, address, port, id."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"port {self.port} is not between 1 and {MAX_PORT}")
        address = _parse(self.address)
        place = (address.version, int(address), self.port, self.id)
        # Its neighbours dial what was checked here, not what it wrote.
        object.__setattr__(self, "address", str(address))
        object.__setattr__(self, "place", place)

    def subnet(self, policy: Policy) -> str:
        """The subnet that it belongs to under a policy, such as `127.0.1.0/24`."""
        version, number, _, _ = self.place
        prefix = policy.prefix4 if version == 4 else policy.prefix6
        if prefix is None:
            prefix = 128
        below = (32 if version == 4 else 128) - prefix
        return _subnet(version, number >> below << below, prefix)

    def stands_alone(self, policy: Policy) -> bool:
        """Whether the policy gives clients of this kind of address no neighbours."""
        return self.place[0] == 6 and policy.prefix6 is None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a client stands, and beside whom."""

    chain: str
    """Name of the chain: its subnet and its number there, such as `127.0.1.0/24#0`."""
    index: int
    """Its place in the chain, from 0 at the lowest address."""
    size: int
    """How many clients the chain has."""
    forward: Member | None
    """The next higher one: the client dials it."""
    backward: Member | None
    """The next lower one: the client accepts it."""

    @property
    def leader(self) -> bool:
        """Whether it is an end of its chain."""
        return self.forward is None or self.backward is None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every client's position. Equal members under equal policies give equal plans."""

    chains: MappingProxyType[str, tuple[Member, ...]]
    """Name of each chain -> its members from the lowest to the highest."""
    positions: MappingProxyType[bytes, Position] = field(repr=False)
    """Component id -> position."""


def plan(members: Iterable[Member], policy: Policy | None = None) -> Plan:
    """Draw the lines of one responder's clients.

    Args:
        members: those that can be linked now, in any order, each id once.
        policy: None for the defaults.

    Raises:
        ValueError: two members have one id.
    """
    policy = policy or Policy()
    subnets: dict[tuple[str, bool], list[Member]] = {}
    for member in sorted(members, key=lambda member: member.place):
        key = (member.subnet(policy), member.stands_alone(policy))
        subnets.setdefault(key, []).append(member)
    chains: dict[str, tuple[Member, ...]] = {}
    positions: dict[bytes, Position] = {}
    for (subnet, alone), ordered in subnets.items():
        for number, chain in enumerate(_cut(ordered, 1 if alone else policy.cap)):
            name = f"{subnet}#{number}"
            chains[name] = tuple(chain)
            for index, member in enumerate(chain):
                if member.id in positions:
                    raise ValueError(f"two members have the id {member.id.hex()}")
                positions[member.id] = _position(name, chain, index)
    return Plan(MappingProxyType(chains), MappingProxyType(positions))


# Every plan asks it of every member, and they have few answers.
@lru_cache(maxsize=1024)
def _subnet(version: int, number: int, prefix: int) -> str:
    address = IPv4Address(number) if version == 4 else IPv6Address(number)
    return str(ip_network((address, prefix)))


def _parse(text: str) -> IPv4Address | IPv6Address:
    """An address without zone, IPv4 where it is one (rule 6)."""
    if "%" in text:
        raise ValueError(f"{text!r:.80} names a zone of its own machine")
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _cut(ordered: Sequence[Member], cap: int) -> list[Sequence[Member]]:
    """The fewest runs of at most `cap` members, their sizes as even as can be (rule 5)."""
    size = len(ordered)
    count = -(-size // cap)
    edges = [size * number // count for number in range(count + 1)]
    return [ordered[start:end] for start, end in pairwise(edges)]


def _position(name: str, chain: Sequence[Member], index: int) -> Position:
    """The position of the member at `index` of a chain."""
    return Position(
        chain=name,
        index=index,
        size=len(chain),
        forward=chain[index + 1] if index + 1 < len(chain) else None,
        backward=chain[index - 1] if index > 0 else None,
    )
