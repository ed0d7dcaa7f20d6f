"""Telling the server about our clients: changes as they come, everything when a hub is new.

A report carries the rows that changed since the last one was taken, and the acknowledgements
that came with them, unchanged. What was not taken is told again; an empty report every quarter
of a minute says that we are there.

An answer decides what becomes of a report:

1. taken          it is forgotten here.
2. not now        no hub, no server, "retry after": all of it stays due, and the next one waits.
3. a failure      of the server: it may be one row that it stumbles over. The halves are told apart,
                  so that what it is costs nobody else, and stays due.
4. for good       what is said is refused: found in the same way, and dropped. Told again it would
                  be refused again, and it would hold up all that comes later.
5. elsewhere      the client that has acknowledged counts at another responder as yet. Found in the
                  same way, and told again when the client has registered here once more.

Each reason is one line in the log, until all that is due has been taken again.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agents.responder.records import AckRecord
from agents.responder.registry import Registry, Row
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger
from protocol.messages import Ack, ClientRow, Credential, Done, Refused, Report

__all__ = ["Reporting"]

ALIVE = 15.0
"""Seconds after which an empty report is sent."""
SOON = 0.2
"""Seconds in which several changes become one report."""
BATCH = 64
"""Rows of one report, and acknowledgements."""
MOST_FAILURES: Final = 8
"""Rows and acknowledgements that a server may fail at, before it is the server that fails."""
FAILED: Final = "internal"
ELSEWHERE: Final = "elsewhere"
FOR_GOOD: Final = frozenset({"envelope", "identity", "signature"})
"""Reasons that say of a report's content that it will never be taken."""


@dataclass(frozen=True, slots=True)
class _Due:
    """What one report says."""

    clients: Sequence[bytes]
    acks: Sequence[AckRecord]

    def __len__(self) -> int:
        return len(self.clients) + len(self.acks)

    def halves(self) -> "tuple[_Due, _Due]":
        """Rows first: an acknowledgement counts once its client is known."""
        if self.clients and self.acks:
            return _Due(self.clients, ()), _Due((), self.acks)
        middle = len(self) // 2
        return (
            _Due(self.clients[:middle], self.acks[:middle]),
            _Due(self.clients[middle:], self.acks[middle:]),
        )


class Reporting:
    """Reports to whichever hub is there.

    Args:
        hub: the link to a hub, or None.
        signed: how many certificates we have signed.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        hub: Callable[[], Channel | None],
        signed: Callable[[], int],
        clock: Clock,
        log: Logger,
    ) -> None:
        self._registry = registry
        self._hub = hub
        self._signed = signed
        self._clock = clock
        self._log = log
        self._acks: dict[tuple[bytes, bytes], AckRecord] = {}
        self._held: dict[tuple[bytes, bytes], AckRecord] = {}
        self._elsewhere: set[bytes] = set()
        """Clients whose acknowledgement is told after their next registration."""
        self._failed_at: set[bytes] = set()
        """Components that the server failed at in this round: left for the next one."""
        self._said: set[tuple[bytes, str]] = set()
        """What the log says already: of whom, and why."""
        self._poked = asyncio.Event()

    def load(self, acks: Iterable[AckRecord]) -> None:
        """Take up what the last run kept; all of it is told to the first hub."""
        self._held = {(ack.component, ack.slot): ack for ack in acks}
        self._acks = dict(self._held)

    def acknowledged(self, ack: AckRecord) -> None:
        """An acknowledgement came in, and is kept."""
        self._held[ack.component, ack.slot] = ack
        self._acks[ack.component, ack.slot] = ack
        self.poke()

    def everything(self) -> None:
        """A hub is new, and so perhaps the server behind it: tell all that we know."""
        self._acks = dict(self._held)
        self._elsewhere.clear()
        self._said.clear()
        self._registry.changed.update(row.record.id for row in self._registry.rows())
        self.poke()

    def poke(self) -> None:
        """Report soon."""
        self._poked.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                async with asyncio.timeout(ALIVE):
                    await self._poked.wait()
                await self._clock.sleep(SOON)
            except TimeoutError:
                pass
            self._poked.clear()
            hub = self._hub()
            if hub is None:
                continue
            try:
                await self._report(hub)
            except UnavailableError as exc:
                self._say_failed(str(exc))
                if exc.retry_after is not None:
                    await self._clock.sleep(min(exc.retry_after, ALIVE))

    async def _report(self, hub: Channel) -> None:
        """Everything that is due, in batches; what is not taken stays due.

        Raises:
            UnavailableError: nothing can be told now.
        """
        self._registry.look()
        self._failed_at.clear()
        due = self._due()
        while True:
            await self._tell(hub, due)
            due = self._due()
            if not due:
                break
        if not self._failed_at:
            self._said = {said for said in self._said if said[0]}

    def _due(self) -> _Due:
        """The next batch of this round."""
        clients = [id for id in self._registry.changed if id not in self._failed_at]
        # A client acknowledges first and registers then; of one that the server does not know it
        # takes no word, so what came in between the two waits for its row.
        acks = [
            ack
            for ack in self._acks.values()
            if ack.component not in self._failed_at and self._registry.knows(ack.component)
        ]
        return _Due(clients[:BATCH], acks[:BATCH])

    async def _tell(self, hub: Channel, due: _Due) -> None:
        # Taken out first: a row that changes while this is under way is due again.
        self._registry.changed.difference_update(due.clients)
        taken = False
        try:
            answer = await hub.request(self._message(due))
            taken = isinstance(answer, Done)
        finally:
            if not taken:
                self._registry.changed.update(due.clients)
        if taken:
            self._forget(due)
            self._remember(due.clients)
            return
        reason = answer.reason if isinstance(answer, Refused) else ""
        text = getattr(answer, "text", "") or reason or f"answered by {type(answer).__name__}"
        if not due or reason not in FOR_GOOD | {FAILED, ELSEWHERE}:
            raise UnavailableError(text, getattr(answer, "retry_after", None))
        if len(due) > 1:
            for half in due.halves():
                await self._tell(hub, half)
            return
        (component,) = (*due.clients, *(ack.component for ack in due.acks))
        if reason in FOR_GOOD:
            self._registry.changed.difference_update(due.clients)
            self._forget(due)
            if self._is_new(text, component):
                self._log.warning("report.dropped", client=component.hex(), reason=text)
            return
        if reason == ELSEWHERE:
            self._forget(due)
            self._elsewhere.add(component)
            return
        self._failed_at.add(component)
        self._say_failed(text)
        if len(self._failed_at) >= MOST_FAILURES:
            raise UnavailableError(text)

    def _message(self, due: _Due) -> Report:
        rows = [row for id in due.clients if (row := self._registry.row(id)) is not None]
        return Report(
            clients=[_client_row(row) for row in rows],
            acks=[_ack(ack) for ack in due.acks],
            issued=self._signed(),
        )

    def _remember(self, clients: Iterable[bytes]) -> None:
        """Have what these have acknowledged told again, where it was not for us to tell."""
        due = self._elsewhere.intersection(clients)
        self._elsewhere -= due
        if due:
            self._acks.update({key: ack for key, ack in self._held.items() if key[0] in due})

    def _forget(self, due: _Due) -> None:
        for ack in due.acks:
            key = ack.component, ack.slot
            if self._acks.get(key) is ack:
                del self._acks[key]

    def _say_failed(self, reason: str) -> None:
        if self._is_new(reason):
            self._log.warning("report.failed", reason=reason)

    def _is_new(self, reason: str, client: bytes = b"") -> bool:
        """Whether the log does not say it yet; it does from now on."""
        size = len(self._said)
        self._said.add((client, reason))
        return len(self._said) > size


def _client_row(row: Row) -> ClientRow:
    record, position = row.record, row.position
    return ClientRow(
        id=record.id,
        host=record.host,
        version=record.version,
        address=record.claimed,
        observed=record.seen,
        port=record.port,
        last_registered=_seconds(record.last_registration),
        key_not_after=_seconds(record.key_not_after),
        root=record.root,
        forward=position.forward.id if position and position.forward else None,
        backward=position.backward.id if position and position.backward else None,
        leader=position is not None and position.leader,
        status="present" if row.present else "offline",
    )


def _seconds(date: datetime | None) -> int | None:
    return None if date is None else int(date.timestamp())


def _ack(ack: AckRecord) -> Ack:
    return Ack(
        slot=ack.slot,
        n=ack.n,
        entry_id=ack.entry_id,
        spki=ack.spki,
        signature=ack.signature,
        credentials=[
            Credential(kind=c.kind, key_id=c.key_id, root=c.root, not_after=c.not_after)
            for c in ack.credentials
        ],
    )
