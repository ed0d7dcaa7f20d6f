"""Who may say what to whom: one table, and one rule that completes it.

The table names *requests*: (link class, sender, receiver) -> what the sender may ask.
The rule: whoever may be asked may answer, with the answers of that request and no others.
CLOSE is allowed on every link; HELLO is the first frame of a link without a client
certificate, and allowed nowhere else. What the table does not name is forbidden.

On a discovery or enrolment link nothing is known of the TLS client: it is a `STRANGER`,
who asks and is never told to do anything. A discovery link's TLS server has shown a
certificate that nobody checked, so only bytes that prove themselves travel there.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from functools import lru_cache
from typing import Final

from protocol.messages import (
    Ack,
    Close,
    Enrol,
    HeadNotice,
    LedgerGet,
    Message,
    NonceGet,
    PeerHello,
    Ping,
    Refused,
    Register,
    Relay,
    Report,
    Settings,
)

__all__ = [
    "CLIENT",
    "HUB",
    "REQUESTS",
    "ROLES",
    "SERVER",
    "STRANGER",
    "ZONE_SERVER",
    "LinkClass",
    "allowed",
    "may_ask",
    "relayable",
]


@unique
class LinkClass(StrEnum):
    """What a link proves: nothing, the server, or both sides."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = str.__hash__

    DISCOVERY = "discovery"
    ENROLMENT = "enrolment"
    MEMBER = "member"


SERVER: Final = "server"
HUB: Final = "hub"
ZONE_SERVER: Final = "zone-server"
CLIENT: Final = "client"
STRANGER: Final = "stranger"
"""The TLS client of a discovery or enrolment link, which has proven nothing."""

ROLES: Final = (SERVER, HUB, ZONE_SERVER, CLIENT)
"""The roles that a certificate can prove."""

Row = tuple[LinkClass, str, str]
Types = frozenset[type[Message]]

_READS: Final[Types] = frozenset({LedgerGet})
_ENROLS: Final[Types] = frozenset({Ping, LedgerGet, NonceGet, Enrol})
_ANNOUNCES: Final[Types] = frozenset({Ping, HeadNotice})

REQUESTS: Final[Mapping[Row, Types]] = {
    # Anybody reads the ledger of anybody.
    (LinkClass.DISCOVERY, STRANGER, SERVER): _READS,
    (LinkClass.DISCOVERY, STRANGER, HUB): _READS,
    (LinkClass.DISCOVERY, STRANGER, ZONE_SERVER): _READS,
    (LinkClass.DISCOVERY, STRANGER, CLIENT): _READS,
    # Who issues certificates, or relays to who does, is asked for one. A stranger that
    # waits for an approval hears of a new head meanwhile.
    (LinkClass.ENROLMENT, STRANGER, SERVER): _ENROLS,
    (LinkClass.ENROLMENT, STRANGER, HUB): _ENROLS,
    (LinkClass.ENROLMENT, STRANGER, ZONE_SERVER): _ENROLS,
    (LinkClass.ENROLMENT, SERVER, STRANGER): _ANNOUNCES,
    (LinkClass.ENROLMENT, HUB, STRANGER): _ANNOUNCES,
    (LinkClass.ENROLMENT, ZONE_SERVER, STRANGER): _ANNOUNCES,
    # A client and its responder.
    (LinkClass.MEMBER, CLIENT, SERVER): _ENROLS | {Ack, Register},
    (LinkClass.MEMBER, CLIENT, ZONE_SERVER): _ENROLS | {Ack, Register},
    (LinkClass.MEMBER, SERVER, CLIENT): _ANNOUNCES,
    (LinkClass.MEMBER, ZONE_SERVER, CLIENT): _ANNOUNCES,
    # Two neighbours: heads go down the chain, acknowledgements up.
    (LinkClass.MEMBER, CLIENT, CLIENT): _ANNOUNCES | {LedgerGet, PeerHello, Ack},
    # A hub speaks for itself, and for zone servers in envelopes.
    (LinkClass.MEMBER, HUB, SERVER): _ENROLS | {Ack, Relay},
    (LinkClass.MEMBER, SERVER, HUB): _ANNOUNCES | {Settings},
    # A zone server speaks to servers through its hub only.
    (LinkClass.MEMBER, ZONE_SERVER, HUB): _ENROLS | {Ack, Report},
    (LinkClass.MEMBER, HUB, ZONE_SERVER): _ANNOUNCES | {Settings},
}
"""What a sender may ask of a receiver."""

_RELAYABLE: Final[Mapping[bool, Types]] = {
    proven: REQUESTS[link, sender, HUB] - {Ping}
    for proven, link, sender in (
        (True, LinkClass.MEMBER, ZONE_SERVER),
        (False, LinkClass.ENROLMENT, STRANGER),
    )
}


def may_ask(link_class: LinkClass, sender: str, receiver: str) -> Types:
    """Return the requests that `sender` may send to `receiver`; empty where no link is."""
    return REQUESTS.get((link_class, sender, receiver), frozenset())


@lru_cache(maxsize=256)
def allowed(link_class: LinkClass, sender_role: str, receiver_role: str) -> Types:
    """Return every type that `sender_role` may send to `receiver_role`.

    Empty where the two have no link of this class. On a discovery link nobody is refused
    with words: the only answer is a ledger's entries.
    """
    asks = may_ask(link_class, sender_role, receiver_role)
    asked = may_ask(link_class, receiver_role, sender_role)
    answers: Types = frozenset().union(*(request.ANSWERS for request in asked))
    if link_class is LinkClass.DISCOVERY:
        answers -= {Refused}
    return asks | answers | {Close} if asks or asked else frozenset()


def relayable(*, proven: bool) -> Types:
    """Return the requests that a hub may put into a `Relay` for a zone server.

    What the zone server may ask of its hub, without `Ping`, which the hub answers itself.
    """
    return _RELAYABLE[proven]
