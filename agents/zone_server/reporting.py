"""Telling the server about our clients: changes as they come, everything when a hub is new.

A report carries the rows that changed since the last one was taken, and the acknowledgements
that came with them, unchanged. What was not taken is told again; an empty report every quarter
of a minute says that we are there.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

from agents.responder.records import AckRecord
from agents.responder.registry import Registry, Row
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger
from protocol.messages import Ack, ClientRow, Credential, Done, Report

__all__ = ["Reporting"]

ALIVE = 15.0
"""Seconds after which an empty report is sent."""
SOON = 0.2
"""Seconds in which several changes become one report."""
BATCH = 64
"""Rows of one report, and acknowledgements."""


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
            if hub is not None:
                try:
                    await self._report(hub)
                except UnavailableError as exc:
                    self._log.info("report.failed", reason=str(exc))

    async def _report(self, hub: Channel) -> None:
        """Everything that is due, in batches; what is not taken stays due."""
        self._registry.look()
        while True:
            ids = list(self._registry.changed)[:BATCH]
            acks = dict(list(self._acks.items())[:BATCH])
            rows = [row for id in ids if (row := self._registry.row(id)) is not None]
            answer = await hub.request(
                Report(
                    clients=[_client_row(row) for row in rows],
                    acks=[_ack(ack) for ack in acks.values()],
                    issued=self._signed(),
                )
            )
            if not isinstance(answer, Done):
                return
            self._registry.changed.difference_update(ids)
            for key, ack in acks.items():
                if self._acks.get(key) is ack:
                    del self._acks[key]
            if not self._registry.changed and not self._acks:
                return


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
