"""A server with the right key whose every word is in order but one.

A client or a hub has dialled it. The lie costs that link or that command, one line says who told
it and what to do, nothing of it is kept, and the next link leads to an honest server.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import pytest
from _pytest.mark import ParameterSet

from agents.member.trust import EXPECTED_HISTORY, REMEDY_OF_REFUSED
from agents.runtime.remedies import REMEDIES
from pki import heads, keys, rotation
from pki.bundle import open_bundle
from pki.ledger import Chain
from protocol.frames import FrameType
from protocol.messages import Done, Refused
from tests.daemons.siege import Siege, until
from tests.daemons.test_false_histories import FALSE, forked, ledger_of
from tests.daemons.trap import DIALS, Dial, Lures
from tests.daemons.turncoat import Lie, Turncoat, misled
from tests.fuzz.names import NAMES, TOO_LONG
from tests.support.daemons import Daemon, Line
from tests.support.thief import keyring_of, leaf_id

pytestmark = [pytest.mark.sockets, pytest.mark.req("E4", "E5")]

CONSEQUENCES: Final = {"registration.failed", "uplink.unavailable", "ledger.unreachable"}
"""Lines that say what a link that has ended was needed for."""
NOISE: Final = bytes(range(256))
NEIGHBOUR: Final = {"id": bytes(16), "address": "127.0.0.1", "port": 1}

BROKEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "5000 bytes of address": {"observed": TOO_LONG},
    "5000 bytes of neighbour's address": {"forward": {**NEIGHBOUR, "address": TOO_LONG}},
    "5000 bytes of setting's name": {"settings": {TOO_LONG: "1"}},
    "5000 bytes of setting": {"settings": {"a": TOO_LONG}},
    "a neighbour of 15 bytes": {"forward": {**NEIGHBOUR, "id": bytes(15)}},
    "a neighbour without an address": {"forward": {"id": bytes(16), "port": 1}},
    "a neighbour at port 65536": {"backward": {**NEIGHBOUR, "port": 65536}},
    "a neighbour at port -1": {"backward": {**NEIGHBOUR, "port": -1}},
    "a neighbour that is a text": {"forward": "127.0.0.1:1"},
    "a token of 65 bytes": {"token": bytes(65)},
    "a token that is a text": {"token": "x"},
    "a revision below 0": {"revision": -1},
    "a revision above all": {"revision": 2**64 - 1},
    "a spread below 0": {"spread": -1.0},
    "a spread of an age": {"spread": 1e10},
    "a spread that is no number": {"spread": float("nan")},
    "a spread without end": {"spread": float("inf")},
    "257 settings": {"settings": {str(n): "1" for n in range(257)}},
    "a setting that is a number": {"settings": {rotation.CLIENT_WINDOW: 4}},
    "settings in a list": {"settings": ["a"] * 100},
    "a head of 17 KiB": {"head": bytes(17 << 10)},
    "an unknown field": {"sudo": "yes"},
}
"""What is no REGISTERED."""


VALUES: Final[Mapping[str, str]] = {
    "a path": NAMES["a path"],
    "NUL": NAMES["NUL"],
    "a terminal's": NAMES["a terminal's"],
    "nought": "0",
    "4096 digits": "9" * 4096,
}
"""What is no number of hours or days."""
WRONG: Final[Mapping[str, Mapping[str, Any]]] = {
    **{
        f"{what} as an address": {"forward": {**NEIGHBOUR, "address": NAMES[what]}}
        for what in NAMES
    },
    "a name as an address": {"backward": {**NEIGHBOUR, "address": "localhost"}},
    "an address with a port": {"forward": {**NEIGHBOUR, "address": "127.0.0.1:14172"}},
    "an address of a zone": {"forward": {**NEIGHBOUR, "address": "fe80::1%lo"}},
    "no address": {"backward": {**NEIGHBOUR, "address": ""}},
    "port 0": {"forward": {**NEIGHBOUR, "port": 0}},
    "one on both sides": {"forward": NEIGHBOUR, "backward": NEIGHBOUR},
    **{
        f"{what} as a setting": {"settings": {rotation.CLIENT_WINDOW: VALUES[what]}}
        for what in VALUES
    },
}
"""What is a REGISTERED, and not of an honest server."""
NO_HEADS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "noise": lambda _: NOISE,
    "nothing": lambda _: b"",
    "16 KiB of nothing": lambda _: bytes(16 << 10),
    "cut": lambda head: head[:-1],
    "flipped": lambda head: bytes([*head[:-1], head[-1] ^ 1]),
}
BROKEN_HEADS: Final[Mapping[str, Mapping[str, Any]]] = {
    "more than 16 KiB": {"head": bytes((16 << 10) + 1)},
    "a text": {"head": "../../etc/passwd"},
    "a spread below 0": {"head": NOISE, "spread": -1.0},
    "a spread that is no number": {"head": NOISE, "spread": float("nan")},
    "a spread without end": {"head": NOISE, "spread": float("inf")},
    "an unknown field": {"head": NOISE, "n": 1},
    "nothing": {},
}
WRONG_ENTRIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "about another slot": {"slot": bytes(32)},
    "from the last number of all": {"first": 2**63 - 1, "entries": [NOISE]},
    "1024 times nothing": {"entries": [b""] * 1024},
    "none, and more to come": {"more": True},
}
BROKEN_ENTRIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "1025": {"entries": [b""] * 1025},
    "one of more than 16 KiB": {"entries": [bytes((16 << 10) + 1)]},
    "texts": {"entries": ["a"]},
    "a number": {"entries": 1},
    "from below 0": {"first": -1},
    "a slot of 31 bytes": {"slot": bytes(31)},
    "a head of more than 16 KiB": {"head": bytes((16 << 10) + 1)},
    "an unknown field": {"root": NOISE},
}
BROKEN_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "5000 bytes of name": {"values": {TOO_LONG: "1"}},
    "5000 bytes of value": {"values": {"a": TOO_LONG}},
    "257": {"values": {str(n): "1" for n in range(257)}},
    "a number": {"values": {rotation.CLIENT_WINDOW: 4}},
    "a list": {"values": ["a"] * 100},
    "a revision below 0": {"revision": -1},
    "a revision above all": {"revision": 2**64 - 1},
    "an unknown field": {"name": "value"},
}
deep = pytest.mark.needs("fuzz")
told = pytest.mark.parametrize(
    "dial", ["client to server", pytest.param("hub to server", marks=deep)]
)


def few(names: Iterable[str]) -> list[ParameterSet]:
    """Two of a kind always; the others, refused at the same place, where there is time."""
    return [pytest.param(name, marks=[deep] if n > 1 else []) for n, name in enumerate(names)]


@pytest.fixture(scope="module")
def chain(siege: Siege) -> Chain:
    (known,) = open_bundle(siege.site.bundle.read_bytes()).chains
    return known


def honest_head(lures: Lures, chain: Chain) -> bytes:
    """What only the server could have signed, before one bit of it was changed."""
    key, last = lures.siege.loot.root.key, chain.last
    return heads.make_head(key, slot=chain.slot, n=last.n, entry_id=last.id, time=2_000_000_000)


def beyond(chain: Chain) -> bytes:
    """A HEAD that nobody can judge before he has asked for what it is about."""
    n = chain.last.n + 1
    return heads.make_head(
        keys.generate(), slot=chain.slot, n=n, entry_id=NOISE[:32], time=2_000_000_000
    )


def warned(victim: Daemon) -> list[Line]:
    """What it has said of its trouble, but for what followed from it."""
    return [
        line
        for line in list(victim.output.lines)
        if line["level"] in ("warning", "error") and line["event"] not in CONSEQUENCES
    ]


def kept_by(victim: Daemon) -> dict[str, object]:
    """What lies on its disk, and came from others."""
    kept: dict[str, object] = dict(ledger_of(victim))
    for name in ("registration.json", "settings.json", "bundle-settings.json"):
        path = victim.state / name
        if path.exists():
            found = msgspec.json.decode(path.read_bytes())
            if name == "registration.json":
                del found["tokens"]  # each answer brings another, lies or not
            kept[name] = found
    return kept


def costs(
    lures: Lures,
    dial: Dial,
    lie: Lie,
    event: str,
    *,
    closed: bool,
    **fields: Any,  # noqa: ANN401
) -> Turncoat:
    """One line, nothing kept, and the way back."""
    victim = lures.victim(dial)
    before, id = kept_by(victim), keyring_of(victim).id
    with misled(lures, dial, lie) as (daemon, turncoat):
        line = daemon.wait(event, **fields)
        link = daemon.wait("link.opened", link=line["link"])
        host, port = turncoat.address
        assert link["remote"] == [host, port]
        assert line["level"] == "warning"
        assert line["fingerprint"] == leaf_id(turncoat.shown)
        assert line["expected"]
        assert line["remedy"]
        assert len(line["reason"]) < 600
        if "kind" in line:
            assert line["kind"] == dial.kind.format(f"{host}:{port}")
            assert line["remote"] == [host, port]
        assert bool(daemon.lines("link.closed", link=line["link"], level="warning")) is closed
        assert kept_by(daemon) == before
        assert warned(daemon) == [line]
        mark = daemon.mark
        turncoat.open.set()
        daemon.wait("link.opened", after=mark)
        works(lures, dial, daemon)
        assert warned(daemon) == [line]
        for wrong in ("identity.renewed", "handler.failed", "task.failed"):
            assert daemon.lines(wrong) == []
    assert turncoat.failures == []
    assert keyring_of(victim).id == id
    assert kept_by(victim) == before
    return turncoat


def works(lures: Lures, dial: Dial, victim: Daemon) -> None:
    """It has what it needs of the honest server."""
    if dial.victim == "client":
        token = (victim.state / "registration.json").read_bytes()
        until(lambda: (victim.state / "registration.json").read_bytes() != token)
    else:
        until(lambda: bool(victim.status()["links"]))


def ends(lures: Lures, dial: str, frame: FrameType, fields: Mapping[str, Any]) -> None:
    """It costs the link."""
    lie = Lie(frame, fields)
    costs(lures, DIALS[dial], lie, "link.closed", closed=True, code="protocol_error", by_peer=False)


class TestRegistered:
    @pytest.mark.parametrize("what", few(BROKEN))
    def test_that_is_broken(self, lures: Lures, what: str) -> None:
        ends(lures, "client to server", FrameType.REGISTERED, BROKEN[what])

    @pytest.mark.parametrize("what", WRONG)
    def test_that_is_wrong(self, lures: Lures, what: str) -> None:
        self._is_refused(lures, "client to server", WRONG[what])

    @pytest.mark.parametrize("what", ["a path as an address", "a path as a setting"])
    def test_of_a_zone_server(self, lures: Lures, what: str) -> None:
        self._is_refused(lures, "client to zone server", WRONG[what])

    def test_a_neighbour_that_is_the_client_itself(self, lures: Lures) -> None:
        id = keyring_of(lures.victim(DIALS["client to server"])).id
        self._is_refused(lures, "client to server", {"forward": {**NEIGHBOUR, "id": id}})

    @pytest.mark.parametrize("what", few(NAMES))
    def test_unknown_settings_cost_nothing_and_are_not_kept(self, lures: Lures, what: str) -> None:
        dial, name = DIALS["client to server"], NAMES[what]
        with misled(lures, dial, Lie(FrameType.REGISTERED, {"settings": {name: name}})) as (
            daemon,
            turncoat,
        ):
            token = (daemon.state / "registration.json").read_bytes()
            until(lambda: (daemon.state / "registration.json").read_bytes() != token)
            assert msgspec.json.decode(token)["settings"] != {name: name}
            kept = msgspec.json.decode((daemon.state / "registration.json").read_bytes())
            assert name not in kept["settings"]
            turncoat.open.set()
            works(lures, dial, daemon)
            assert warned(daemon) == []

    @pytest.mark.parametrize("what", few(NO_HEADS))
    def test_with_what_is_no_head(self, lures: Lures, chain: Chain, what: str) -> None:
        head = NO_HEADS[what](honest_head(lures, chain))
        costs(
            lures,
            DIALS["client to server"],
            Lie(FrameType.REGISTERED, {"head": head}),
            "ledger.refused",
            closed=False,
            expected="a HEAD",
        )

    def _is_refused(self, lures: Lures, dial: str, fields: Mapping[str, Any]) -> None:
        lie = Lie(FrameType.REGISTERED, fields)
        costs(
            lures,
            DIALS[dial],
            lie,
            "answer.refused",
            closed=False,
            type="Registered",
            remedy=REMEDIES["not_allowed"],
        )


class TestHeadNotice:
    @told
    @pytest.mark.parametrize("what", few(NO_HEADS))
    def test_of_what_is_no_head(self, lures: Lures, chain: Chain, dial: str, what: str) -> None:
        head = NO_HEADS[what](honest_head(lures, chain))
        lie = Lie(FrameType.HEAD_NOTICE, {"head": head})
        turncoat = costs(lures, DIALS[dial], lie, "ledger.refused", closed=False, expected="a HEAD")
        assert [type(answer) for answer in turncoat.answers] == [Done]

    @pytest.mark.parametrize("what", few(BROKEN_HEADS))
    def test_that_is_broken(self, lures: Lures, what: str) -> None:
        ends(lures, "client to server", FrameType.HEAD_NOTICE, BROKEN_HEADS[what])


class TestLedgerEntries:
    @told
    @pytest.mark.parametrize("what", FALSE)
    def test_of_a_false_history(self, lures: Lures, chain: Chain, dial: str, what: str) -> None:
        first, entries = FALSE[what](chain)
        self._is_refused(lures, chain, dial, {"first": first, "entries": entries})

    @told
    @pytest.mark.parametrize("what", WRONG_ENTRIES)
    def test_that_are_wrong(self, lures: Lures, chain: Chain, dial: str, what: str) -> None:
        self._is_refused(lures, chain, dial, WRONG_ENTRIES[what])

    @told
    def test_with_what_is_no_head(self, lures: Lures, chain: Chain, dial: str) -> None:
        lie = Lie(FrameType.LEDGER_ENTRIES, {"head": NOISE}, news=beyond(chain))
        costs(lures, DIALS[dial], lie, "ledger.refused", closed=False, expected="a HEAD")

    @pytest.mark.parametrize("what", few(BROKEN_ENTRIES))
    def test_that_are_broken(self, lures: Lures, chain: Chain, what: str) -> None:
        lie = Lie(FrameType.LEDGER_ENTRIES, BROKEN_ENTRIES[what], news=beyond(chain))
        dial = DIALS["client to server"]
        costs(lures, dial, lie, "link.closed", closed=True, code="protocol_error")

    @told
    def test_a_fork(self, siege: Siege, lures: Lures, chain: Chain, dial: str) -> None:
        """Its line is an error, and both sides of it are kept: the ledger is as it was."""
        first, entries = forked(chain, siege)
        fields = {"first": first, "entries": entries}
        lie = Lie(FrameType.LEDGER_ENTRIES, fields, news=beyond(chain))
        before = lures.victim(DIALS[dial]).status()["ledger"]
        with misled(lures, DIALS[dial], lie) as (daemon, turncoat):
            line = daemon.wait("ledger.forked")
            assert line["level"] == "error"
            assert line["link"]
            assert line["fingerprint"] == leaf_id(turncoat.shown)
            turncoat.open.set()
            works(lures, DIALS[dial], daemon)
        assert lures.victim(DIALS[dial]).status()["ledger"] == before

    def _is_refused(self, lures: Lures, chain: Chain, dial: str, fields: Mapping[str, Any]) -> None:
        lie = Lie(FrameType.LEDGER_ENTRIES, fields, news=beyond(chain))
        costs(
            lures,
            DIALS[dial],
            lie,
            "ledger.refused",
            closed=False,
            expected=EXPECTED_HISTORY,
            remedy=REMEDY_OF_REFUSED,
        )


class TestSettings:
    @pytest.mark.parametrize("dial", ["client to server", "client to zone server"])
    def test_are_nothing_to_tell_a_client(self, lures: Lures, dial: str) -> None:
        lie = Lie(FrameType.SETTINGS, {"revision": 1, "values": {}})
        costs(lures, DIALS[dial], lie, "link.closed", closed=True, code="not_allowed")

    @pytest.mark.parametrize("what", few(BROKEN_SETTINGS))
    def test_that_are_broken(self, lures: Lures, what: str) -> None:
        fields = {"revision": 1, "values": {}, **BROKEN_SETTINGS[what]}
        ends(lures, "hub to server", FrameType.SETTINGS, fields)

    @pytest.mark.parametrize("what", few(VALUES))
    def test_that_are_wrong(self, lures: Lures, what: str) -> None:
        values = {next(iter(rotation.SETTINGS)): VALUES[what]}
        lie = Lie(FrameType.SETTINGS, {"revision": 2**63 - 1, "values": values})
        turncoat = costs(
            lures,
            DIALS["hub to server"],
            lie,
            "request.refused",
            closed=False,
            type="Settings",
            remedy=REMEDIES["not_allowed"],
        )
        (answer,) = turncoat.answers
        assert isinstance(answer, Refused)
        assert answer.reason == "settings"
