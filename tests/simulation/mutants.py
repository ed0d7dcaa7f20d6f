"""The product with one rule taken away, to show that somebody here would notice.

Each is a context in which a world is played; what is taken away is what the name says.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, cast
from unittest.mock import patch

from agents.client import registration
from agents.hub.app import Hub
from agents.member.acknowledging import Acknowledging
from agents.responder import tokens
from agents.responder.records import ClientRecord, IssuedRecord
from agents.responder.registry import Registry
from agents.responder.tokens import Given
from agents.runtime.errors import UnavailableError
from agents.runtime.files import TwoGenerations
from agents.runtime.journal import Journal, _batch
from agents.server.authority import Authority
from agents.server.store.clients import ClientTable
from agents.server.store.issued import IssuedTable
from agents.zone_server.app import ZoneServer
from agents.zone_server.records import ZoneRecords
from pki import steps, succession
from pki.certificates import Kind as CertificateKind
from pki.entries import Kind
from pki.steps import CHECKS
from pki.succession import Succession
from tests.simulation.acts import Cut, Heal, Hold, Kill, Move, Reset, Rotate, Storm, Struck
from tests.simulation.disk import Failure, Strike
from tests.simulation.plan import Cast, Plan, draw

__all__ = ["MUTANTS"]

LATE: Final = 0.2
"""Seconds by which a write comes after the word that it is done."""

_RUNNING: Final[set[asyncio.Task[None]]] = set()

Mutant = Callable[[], AbstractContextManager[object]]


def _without(name: str) -> tuple[Callable[..., None], ...]:
    left = tuple(check for check in CHECKS[Kind.ROTATE] if check.__name__ != name)
    assert len(left) == len(CHECKS[Kind.ROTATE]) - 1, f"no check is named {name}"
    return left


@contextmanager
def nothing_supersedes() -> Iterator[None]:
    """Rule 9: who was misled stays misled."""
    with patch.dict(succession.RULES):
        del succession.RULES[Succession.SUPERSEDES]
        yield


@contextmanager
def nothing_is_committed_to() -> Iterator[None]:
    """Rule 3: the holder of one root makes the next one as he likes."""
    with patch.dict(cast("dict[Kind, Any]", steps.CHECKS), {Kind.ROTATE: _without("_commit")}):
        yield


@contextmanager
def ledger_is_written_late() -> Iterator[None]:
    """Rule 18: what was told and acknowledged reaches the disk a moment later."""
    write = TwoGenerations.write

    def late(self: TwoGenerations, data: bytes) -> int:
        if not self.exists:
            return write(self, data)
        asyncio.get_running_loop().call_later(LATE, write, self, data)
        return 0

    with patch.object(TwoGenerations, "write", late):
        yield


@contextmanager
def ledger_is_not_written_by_clients() -> Iterator[None]:
    """Rule 18 at a client: it follows in memory only."""
    write = TwoGenerations.write

    def first_only(self: TwoGenerations, data: bytes) -> int:
        return 0 if self.exists and "client" in str(self._path) else write(self, data)

    with patch.object(TwoGenerations, "write", first_only):
        yield


@contextmanager
def issue_is_recorded_late() -> Iterator[None]:
    """A certificate leaves, and its record follows."""
    record = IssuedTable.record

    async def late(self: IssuedTable, issued: IssuedRecord) -> None:
        _later(lambda: record(self, issued))

    with patch.object(IssuedTable, "record", late):
        yield


@contextmanager
def registration_is_saved_late() -> Iterator[None]:
    """A token is handed out, and is on record later."""
    save = ClientTable.save

    async def late(self: ClientTable, rows: Sequence[ClientRecord]) -> None:
        _later(lambda: save(self, rows))

    with patch.object(ClientTable, "save", late):
        yield


@contextmanager
def one_token_is_good() -> Iterator[None]:
    """The token that was shown for the last one is forgotten: no answer may be lost."""
    save = ClientTable.save

    async def forgetful(self: ClientTable, rows: Sequence[ClientRecord]) -> None:
        await save(self, [replace(row, token_shown=None) for row in rows])

    merged = Registry._merged

    def forget(self: Registry, *args: Any) -> ClientRecord:  # noqa: ANN401
        return replace(merged(self, *args), token_shown=None)

    with patch.object(ClientTable, "save", forgetful), patch.object(Registry, "_merged", forget):
        yield


@contextmanager
def nothing_is_reconciled() -> Iterator[None]:
    """Keys and ledger of a server stay as a crash left them."""
    with patch.object(Authority, "reconcile", lambda _self: None):
        yield


@contextmanager
def nobody_looks_for_news() -> Iterator[None]:
    """A strict handshake that failed leads nowhere: sleepers stay behind."""

    async def deaf(_self: object, *_args: object, **_options: object) -> bool:
        return False

    with patch("agents.member.following.Following.catch_up", deaf):
        yield


@contextmanager
def zone_records_are_written_late() -> Iterator[None]:
    """A zone server answers, and its log follows."""
    append = ZoneRecords._append

    async def late(self: ZoneRecords, kind: str, value: object) -> None:
        self._take(kind, value)
        _later(lambda: append(self, kind, value))

    with patch.object(ZoneRecords, "_append", late):
        yield


@contextmanager
def nothing_is_synced() -> Iterator[None]:
    """A zone server's log is written, and stays in the memory of its machine."""

    def unsynced(self: Journal, records: Sequence[bytes]) -> None:
        data = _batch(records, self._salt, self._end)
        self._tape.write(data, self._end)
        self._end += len(data)

    with patch.object(Journal, "_commit", unsynced):
        yield


@contextmanager
def a_useless_log_is_kept() -> Iterator[None]:
    """A zone server goes on after an fsync that failed, and can record nothing any more."""

    async def never(self: ZoneRecords) -> None:
        await asyncio.get_running_loop().create_future()

    with patch.object(ZoneRecords, "failed", never):
        yield


@contextmanager
def hubs_pass_nothing_on() -> Iterator[None]:
    """What happens inside is not told outwards."""

    async def silent(self: Hub, *_args: object) -> None:
        await asyncio.sleep(0)

    with (
        patch.object(Hub, "_relay", silent),
        patch.object(Hub, "_greet", silent),
    ):
        yield


@contextmanager
def zone_servers_keep_their_ca() -> Iterator[None]:
    """A zone server follows, and goes on signing clients' keys under an older root."""
    obtain = ZoneServer._obtain

    async def never(self: ZoneServer, kind: CertificateKind, reason: str) -> None:
        if kind is CertificateKind.CLIENT_CA and self.keyring.credential(kind) is not None:
            raise UnavailableError("not now")
        await obtain(self, kind, reason)

    with patch.object(ZoneServer, "_obtain", never):
        yield


@contextmanager
def a_late_one_begins_a_round() -> Iterator[None]:
    """Tokens, rule 2: of those that were given for one token only the last is good."""
    give = tokens.give

    def anew(
        before: ClientRecord | None, shown: bytes, random: Callable[[int], bytes]
    ) -> Given | None:
        given = give(before, shown, random)
        if given is None or before is None or before.token_out != given.out:
            return given
        token = random(tokens.OUT_BYTES)
        return Given(given.shown, token, token)

    with patch.object(tokens, "give", anew):
        yield


@contextmanager
def everything_is_said_once() -> Iterator[None]:
    """What a client has said before its last registration is never corrected."""
    with patch.object(registration, "FULL_IN_A_ROW", 1):
        yield


@contextmanager
def nobody_acknowledges_again() -> Iterator[None]:
    """A hub or a zone server says once how far it is, and not what of that was not taken."""
    say = Acknowledging._say

    async def once(self: Acknowledging) -> None:
        with suppress(UnavailableError):
            await say(self)

    with patch.object(Acknowledging, "_say", once):
        yield


def _later(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await asyncio.sleep(LATE)
        await work()

    task = asyncio.ensure_future(run())
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)


def _kills(seed: int) -> Plan:
    """The server is killed while the first clients register."""
    settling = 0.9 + seed * 0.1
    return Plan(seed, Cast(5), ((5.0, Kill(0, power=False)),) * 3, settling)


def _held_back(seed: int) -> Plan:
    """What clients have said arrives when they listen elsewhere, and have said so."""
    ends = (1, 3)  # whose links to the server stand
    held = [(25.0 * place, Hold(end, 100.0)) for place, end in enumerate(ends, start=1)]
    moved = [(60.0 * place, Move(end)) for place, end in enumerate(ends)]
    return Plan(seed, Cast(3), (*held, *moved), 100.0)


def _failed_sync(seed: int) -> Plan:
    """The next fsync of a zone server's log fails."""
    struck = Struck(Cast(1, 1, 1).zone_servers[0], 1, Strike(Failure.AFTER, kill=False))
    return Plan(seed, Cast(1, 1, 1), ((90.0, struck), (5.0, Rotate())), 30.0)


def _resets(seed: int) -> Plan:
    """Hardly a link that stands for long."""
    return Plan(seed, Cast(5), ((0.0, Storm(1.0, 0.1)), *((1.5, Reset(0.5)) for _ in range(40))))


def _cut_off(seed: int) -> Plan:
    """The hub is cut off from the server at some moment while zone servers renew."""
    cast = Cast(0, 6)
    cut = Cut(0, cast.hub)
    return Plan(seed, cast, ((0.0, Rotate()), (0.75 + 0.01 * seed, cut), (20.0, Heal())), 30.0)


DARK: Final = range(3, 12, 4)
"""Worlds that have a DMZ."""
MUTANTS: Final[dict[str, tuple[Mutant, Callable[[int], Plan], range, str]]] = {
    "nothing supersedes": (nothing_supersedes, draw, range(3, 5), "does not follow"),
    "nothing is committed to": (nothing_is_committed_to, draw, range(3, 5), "the thief made"),
    "the ledger is written late": (ledger_is_written_late, draw, range(2), "not on its"),
    "clients do not write": (ledger_is_not_written_by_clients, draw, range(2), "not on its disk"),
    "issues are recorded late": (issue_is_recorded_late, draw, range(2), "on no record"),
    "registrations are saved late": (registration_is_saved_late, _kills, range(5), "for a copy"),
    "one token is good": (one_token_is_good, _resets, range(5), "for a copy"),
    "nothing is reconciled": (nothing_is_reconciled, draw, range(2, 4), "more standby keys"),
    "nobody looks for news": (nobody_looks_for_news, draw, range(2), "does not follow"),
    "a late one begins a round": (a_late_one_begins_a_round, _held_back, range(1, 7), "for a copy"),
    "everything is said once": (everything_is_said_once, _held_back, range(2, 8), "not listen"),
    "zone records are late": (zone_records_are_written_late, draw, DARK, "on no record"),
    "zone records are not synced": (nothing_is_synced, draw, DARK, "on no record"),
    "a useless log is kept": (a_useless_log_is_kept, _failed_sync, range(3), "does not follow"),
    "hubs pass nothing on": (hubs_pass_nothing_on, draw, range(23, 40, 8), "does not follow"),
    "a zone's CA stays": (zone_servers_keep_their_ca, draw, DARK, "does not follow"),
    "nobody acknowledges again": (
        nobody_acknowledges_again,
        _cut_off,
        range(4, 12),
        "as not moved",
    ),
}
"""Each with plans in one of which it shows, and words of what is then broken."""
