from itertools import product

import pytest

from protocol.access import (
    CLIENT,
    HUB,
    REQUESTS,
    ROLES,
    SERVER,
    STRANGER,
    ZONE_SERVER,
    LinkClass,
    allowed,
    may_ask,
    relayable,
)
from protocol.frames import FrameType
from protocol.messages import MESSAGES, Close, Hello, Message

# Everything that may be asked, written out a second time: sender > receiver, class, types.
TABLE = """
stranger    server       discovery  LEDGER_GET
stranger    hub          discovery  LEDGER_GET
stranger    zone-server  discovery  LEDGER_GET
stranger    client       discovery  LEDGER_GET
stranger    server       enrolment  PING LEDGER_GET NONCE_GET ENROL
stranger    hub          enrolment  PING LEDGER_GET NONCE_GET ENROL
stranger    zone-server  enrolment  PING LEDGER_GET NONCE_GET ENROL
server      stranger     enrolment  PING HEAD_NOTICE
hub         stranger     enrolment  PING HEAD_NOTICE
zone-server stranger     enrolment  PING HEAD_NOTICE
client      server       member     PING LEDGER_GET ACK NONCE_GET ENROL REGISTER
client      zone-server  member     PING LEDGER_GET ACK NONCE_GET ENROL REGISTER
server      client       member     PING HEAD_NOTICE
zone-server client       member     PING HEAD_NOTICE
client      client       member     PING LEDGER_GET HEAD_NOTICE ACK PEER_HELLO
hub         server       member     PING LEDGER_GET ACK NONCE_GET ENROL RELAY
server      hub          member     PING HEAD_NOTICE SETTINGS
zone-server hub          member     PING LEDGER_GET ACK NONCE_GET ENROL REPORT
hub         zone-server  member     PING HEAD_NOTICE SETTINGS
"""

ANSWERS = {
    "PING": "PONG REFUSED",
    "LEDGER_GET": "LEDGER_ENTRIES REFUSED",
    "HEAD_NOTICE": "DONE REFUSED",
    "ACK": "DONE REFUSED",
    "NONCE_GET": "NONCE REFUSED",
    "ENROL": "ISSUED PENDING REFUSED",
    "REGISTER": "REGISTERED REFUSED",
    "PEER_HELLO": "DONE REFUSED",
    "SETTINGS": "DONE REFUSED",
    "REPORT": "DONE REFUSED",
    "RELAY": "RELAYED REFUSED",
}

EVERYBODY = (*ROLES, STRANGER)


def names(types: frozenset[type[Message]]) -> set[str]:
    return {message.FRAME.name for message in types}


def asked() -> dict[tuple[str, str, str], set[str]]:
    rows = [line.split() for line in TABLE.strip().splitlines()]
    return {(link, sender, receiver): set(types) for sender, receiver, link, *types in rows}


def said(link: str, sender: str, receiver: str) -> set[str]:
    """The rule, written out: own requests, and answers to the other side's."""
    table = asked()
    requests = table.get((link, sender, receiver), set())
    received = table.get((link, receiver, sender), set())
    if not requests and not received:
        return set()
    answers = {answer for request in received for answer in ANSWERS[request].split()}
    if link == "discovery":
        answers.discard("REFUSED")
    return requests | answers | {"CLOSE"}


@pytest.mark.parametrize("link", LinkClass)
def test_who_may_say_what_is_this_table_and_nothing_else(link: LinkClass) -> None:
    for sender, receiver in product(EVERYBODY, EVERYBODY):
        expected = said(link, sender, receiver)
        got = names(allowed(link, sender, receiver))
        assert got == expected, f"{sender} to {receiver} on a {link} link"


def test_the_answers_are_these() -> None:
    requests = {message.FRAME.name: message for message in MESSAGES if message.ANSWERS}
    assert {name: " ".join(sorted(names(m.ANSWERS))) for name, m in requests.items()} == {
        name: " ".join(sorted(types.split())) for name, types in ANSWERS.items()
    }


def test_each_request_may_be_said_by_somebody_and_no_answer_is_asked() -> None:
    everything = frozenset[type[Message]]().union(*REQUESTS.values())
    assert everything == {message for message in MESSAGES if message.ANSWERS}


def test_hello_is_in_no_row() -> None:
    for link, sender, receiver in product(LinkClass, EVERYBODY, EVERYBODY):
        assert Hello not in allowed(link, sender, receiver)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ZONE_SERVER, SERVER),
        (CLIENT, HUB),
        (HUB, HUB),
        (ZONE_SERVER, ZONE_SERVER),
        (SERVER, SERVER),
        (STRANGER, SERVER),
    ],
)
def test_these_have_no_member_link(one: str, other: str) -> None:
    assert allowed(LinkClass.MEMBER, one, other) == frozenset()
    assert allowed(LinkClass.MEMBER, other, one) == frozenset()


def test_a_client_enrols_nobody() -> None:
    assert allowed(LinkClass.ENROLMENT, STRANGER, CLIENT) == frozenset()


def test_an_unknown_role_says_nothing() -> None:
    for link, role in product(LinkClass, ROLES):
        assert allowed(link, "root", role) == frozenset()
        assert allowed(link, role, "root") == frozenset()


def test_discovery_is_two_messages_and_close() -> None:
    for role in ROLES:
        assert names(allowed(LinkClass.DISCOVERY, STRANGER, role)) == {"LEDGER_GET", "CLOSE"}
        assert names(allowed(LinkClass.DISCOVERY, role, STRANGER)) == {"LEDGER_ENTRIES", "CLOSE"}


def test_whoever_speaks_may_close() -> None:
    for link, sender, receiver in product(LinkClass, EVERYBODY, EVERYBODY):
        types = allowed(link, sender, receiver)
        assert not types or Close in types


def test_a_hub_relays_what_a_zone_server_may_ask_of_it() -> None:
    proven = {"LEDGER_GET", "ACK", "NONCE_GET", "ENROL", "REPORT"}
    assert names(relayable(proven=True)) == proven
    assert names(relayable(proven=False)) == {"LEDGER_GET", "NONCE_GET", "ENROL"}
    assert may_ask(LinkClass.MEMBER, ZONE_SERVER, HUB) > relayable(proven=True)
    assert FrameType.RELAY.name not in names(relayable(proven=True)), "an envelope in an envelope"
