"""The clients that report to this responder, and each one's place in its line (F1-F3, G1, G2).

A client is *present* while it registers: it was seen within three of its longest intervals
(network time), and no neighbour has reported it unreachable since. Those present are planned
into chains, each subnet by itself: when who is present, or where it listens, changes, the plan
of that subnet is made anew and no other's, so that a newcomer costs what its subnet has and not
what the fleet has. The revision rises with each and never goes back, so of two plans everybody
knows the newer. Who has gone silent is found at the next question or registration after: each
subnet knows when the first of its members can have, and is looked at then.

**Clones.** Each answer brings a token that the client shows next time; `agents.responder.tokens`
says what that proves of copied machines. Registrations of one client are taken one after the
other: one that comes while another is being written would not know what that one was given.

**Late ones.** A registration that was delayed on an old link can be taken after a newer one, and
as nothing tells their order its host, address and port then stand for a while. It is the client
that sees to it: it says everything again as long as one that it has sent may still be taken
(`agents.client.registration`).

A row is durable before its answer leaves: a token that is shown must be good by what is on record.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from weakref import WeakValueDictionary

from agents.responder import neighbourhoods, tokens
from agents.responder.neighbourhoods import Member, Plan, Policy, Position
from agents.responder.records import ClientRecord, RegistryStore
from agents.responder.tokens import Given
from agents.runtime.admission import Buckets
from agents.runtime.clock import Clock
from agents.runtime.logs import Logger
from pki.peers import Peer
from protocol.messages import VERSION, Neighbour, Refused, Register, Registered

__all__ = ["Registry", "Row"]

MISSED = 3
"""Longest registration intervals after which a silent client is no longer planned with."""
LOSSES = 4
"""Reports of a lost neighbour that one client may make in a row."""
LOSS_INTERVAL = 30.0
"""Seconds after which it may make one more."""
LOSS_REPORTERS = 10_000
"""Reporters that are counted; the longest unseen is forgotten."""


@dataclass(frozen=True, slots=True)
class Row:
    """One client, for lists and reports."""

    record: ClientRecord
    present: bool
    position: Position | None


@dataclass(slots=True)
class _Subnet:
    """The clients of one subnet that are present, and their part of the plan."""

    until: float
    """Nobody of it goes silent before then; network time."""
    members: dict[bytes, Member] = field(default_factory=dict)
    plan: Plan | None = None
    """None: somebody came, went or moved since."""


class Registry:
    """Answers registrations. For one event loop.

    Args:
        responder: our component id.
        longest: seconds of network time, the longest interval between two registrations.
        settings: the client settings now in force.
        heard: whether the word of another responder about its clients counts: of one that is not
            heard of any more, none of its clients is present.
        random: gives tokens.
    """

    def __init__(
        self,
        store: RegistryStore,
        *,
        responder: bytes,
        clock: Clock,
        log: Logger,
        policy: Policy,
        longest: float,
        settings: Callable[[], dict[str, str]],
        heard: Callable[[bytes], bool] = lambda _responder: True,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._responder = responder
        self._clock = clock
        self._log = log
        self._policy = policy
        self._patience = MISSED * longest
        self._settings = settings
        self._heard = heard
        self._random = random
        self._rows: dict[bytes, ClientRecord] = {}
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._seen: dict[bytes, float] = {}
        self._subnets: dict[str, _Subnet] = {}
        self._standing: dict[bytes, tuple[str, Member]] = {}  # where each of their members is
        self._due: list[tuple[float, str]] = []  # a heap: when to look for the silent, and where
        self._reports = Buckets(burst=LOSSES, interval=LOSS_INTERVAL, capacity=LOSS_REPORTERS)
        self.revision = 0
        self.changed: set[bytes] = set()
        """Clients whose row changed since somebody last took this set away, silence included."""

    async def load(self) -> None:
        """Take up where the last run left: everybody gets time to register again."""
        self._rows = {row.id: row for row in await self._store.load()}
        now = self._clock.monotonic()
        self._seen = dict.fromkeys(self._rows, now)
        for row in self._rows.values():
            if row.responder == self._responder and self._is_present(row):
                self._join(row.id, *self._stand(row))
        # Above every revision of an earlier run, whatever it was.
        self.revision = int(self._clock.now().timestamp() * 1000)
        self.changed = set(self._rows)

    def rows(self) -> list[Row]:
        """Every client, by host name."""
        self.look()
        return [
            self._row(record)
            for record in sorted(self._rows.values(), key=lambda r: (r.host, r.id))
        ]

    def knows(self, id: bytes) -> bool:
        """Whether this client has registered here, or was reported."""
        return id in self._rows

    def row(self, id: bytes) -> Row | None:
        """One client."""
        self.look()
        record = self._rows.get(id)
        return None if record is None else self._row(record)

    def look(self) -> None:
        """Take out of their chains those who have gone silent."""
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now:
            _, name = heappop(self._due)
            subnet = self._subnets.get(name)
            if subnet is None or subnet.until > now:
                continue  # of a subnet that was empty meanwhile
            for id in [id for id in subnet.members if self._silent_at(id) <= now]:
                self._leave(id)
                self.changed.add(id)
                host = self._rows[id].host
                self._log.info("client.silent", client=id.hex(), host=host)
            if subnet.members:
                subnet.until = min(map(self._silent_at, subnet.members))
                heappush(self._due, (subnet.until, name))

    async def adopt(self, rows: Sequence[ClientRecord]) -> None:
        """Take rows that another responder of ours reports; they are not planned here.

        A client that is present at one responder is not another's to tell of: one that has moved
        is told of again when the first has missed it.
        """
        async with AsyncExitStack() as locked:
            # One that registers here at this moment is ours.
            for id in sorted({row.id for row in rows}):
                await locked.enter_async_context(self._lock(id))
            believed = [row for row in rows if not self._is_present_elsewhere(row)]
            await self._store.save(believed)
            for row in believed:
                before = self._rows.get(row.id)
                if before is not None and before.responder == self._responder:
                    self._leave(row.id)
                self._rows[row.id] = row

    def responder_of(self, id: bytes) -> bytes | None:
        """The responder that a client reports to, if it is known."""
        record = self._rows.get(id)
        return None if record is None else record.responder

    def _is_present_elsewhere(self, row: ClientRecord) -> bool:
        held = self._rows.get(row.id)
        return held is not None and held.responder != row.responder and self._is_present(held)

    async def register(self, peer: Peer, remote: str, message: Register) -> Registered | Refused:
        """Take a registration of the client that `peer` proves."""
        async with self._lock(peer.name.id):
            return await self._register(peer, remote, message)

    def _lock(self, id: bytes) -> asyncio.Lock:
        lock = self._locks.get(id)
        if lock is None:
            lock = self._locks[id] = asyncio.Lock()
        return lock

    async def _register(self, peer: Peer, remote: str, message: Register) -> Registered | Refused:
        self.look()
        id = peer.name.id
        before = self._rows.get(id)
        if before is not None and before.responder != self._responder:
            before = None  # it reported elsewhere: no token of ours is on record
        given = tokens.give(before, message.token, self._random)
        if given is None:
            self._log.warning(
                "client.cloned", client=id.hex(), host=before.host if before else "", remote=remote
            )
            return Refused(
                reason="cloned",
                text="another machine registers with this identity; make a new one",
            )
        if before is None and not message.full:
            return Refused(reason="full", text="say everything once", retry_after=0.0)
        row = self._merged(before, peer, remote, message, given)
        try:
            subnet, member = self._stand(row)
        except ValueError as exc:
            return Refused(reason="address", text=str(exc))
        self._note_lost(id, message.lost)
        # Durable first: the token that we give is shown next time.
        await self._store.save([row])
        self._rows[id] = row
        self._seen[id] = self._clock.monotonic()
        self.changed.add(id)
        self._join(id, subnet, member)
        if before is None:
            self._log.info(
                "client.registered",
                client=id.hex(),
                host=row.host,
                address=row.claimed,
                remote=row.seen,
            )
        return self._answer(row, given.token)

    def _merged(
        self,
        before: ClientRecord | None,
        peer: Peer,
        remote: str,
        message: Register,
        given: Given,
    ) -> ClientRecord:
        now = self._clock.now()
        base = before or ClientRecord(
            id=peer.name.id,
            host="",
            claimed="",
            seen=remote,
            port=0,
            protocol=VERSION,
            version="",
            last_registration=None,
            key_not_after=None,
            root=None,
            responder=self._responder,
            token_out=None,
            token_shown=None,
            lost_at=None,
            first_seen=now,
        )
        return replace(
            base,
            host=base.host if message.host is None else message.host,
            version=base.version if message.version is None else message.version,
            claimed=base.claimed if message.address is None else message.address,
            port=base.port if message.port is None else message.port,
            seen=remote,
            last_registration=now,
            # Not what it says: what its link has proven.
            key_not_after=peer.leaf.not_after,
            root=peer.root,
            token_shown=given.shown,
            token_out=given.out,
            lost_at=None,
        )

    def _note_lost(self, reporter: bytes, lost: Sequence[bytes]) -> None:
        """Believe a report of a neighbour about its neighbour, and of nobody else.

        A few in a row, for a whole rack can go; then one a while, or one liar could have a
        subnet planned without everybody beside him.
        """
        position = self._position(reporter) if lost else None
        if position is None or self._reports.take(reporter.hex(), self._clock.monotonic()) > 0:
            return
        neighbours = {m.id for m in (position.forward, position.backward) if m is not None}
        for id in neighbours.intersection(lost):
            record = self._rows[id]
            self._rows[id] = replace(record, lost_at=self._clock.now())
            self._leave(id)
            self.changed.add(id)
            self._log.warning(
                "client.lost", client=id.hex(), host=record.host, reporter=reporter.hex()
            )

    def _answer(self, row: ClientRecord, token: bytes) -> Registered:
        position = self._position(row.id)
        return Registered(
            token=token,
            observed=row.seen,
            forward=_neighbour(position.forward) if position else None,
            backward=_neighbour(position.backward) if position else None,
            revision=self.revision,
            leader=position is None or position.leader,
            settings=self._settings(),
        )

    def _is_present(self, record: ClientRecord) -> bool:
        if record.responder != self._responder:
            return record.lost_at is None and self._heard(record.responder)
        return (
            record.lost_at is None
            and record.last_registration is not None
            and self._clock.monotonic() < self._silent_at(record.id)
        )

    def _silent_at(self, id: bytes) -> float:
        """When a client counts as silent if it does not register before."""
        return self._seen.get(id, -self._patience) + self._patience

    def _row(self, record: ClientRecord) -> Row:
        return Row(record, self._is_present(record), self._position(record.id))

    def _stand(self, row: ClientRecord) -> tuple[str, Member]:
        """The subnet of a client, and how it stands there.

        Raises:
            ValueError: an address or a port that is none.
        """
        address = row.claimed or row.seen
        held = self._standing.get(row.id)
        if held is not None and (held[1].address, held[1].port) == (address, row.port):
            return held
        member = Member(row.id, address, row.port)
        return member.subnet(self._policy), member

    def _join(self, id: bytes, name: str, member: Member) -> None:
        """Have a client planned where it stands, if it was not."""
        if self._standing.get(id) == (name, member):
            return
        self._leave(id)
        subnet = self._subnets.get(name)
        if subnet is None:
            # Whoever joins later goes silent later.
            subnet = self._subnets[name] = _Subnet(self._silent_at(id))
            heappush(self._due, (subnet.until, name))
        subnet.members[id] = member
        subnet.plan = None
        self._standing[id] = name, member

    def _leave(self, id: bytes) -> None:
        """Have a client planned no more."""
        held = self._standing.pop(id, None)
        if held is None:
            return
        name, _ = held
        subnet = self._subnets[name]
        del subnet.members[id]
        subnet.plan = None
        if not subnet.members:
            del self._subnets[name]

    def _position(self, id: bytes) -> Position | None:
        """Where a client stands in the plan of its subnet, made now if it has changed."""
        held = self._standing.get(id)
        if held is None:
            return None
        subnet = self._subnets[held[0]]
        if subnet.plan is None:
            subnet.plan = neighbourhoods.plan(subnet.members.values(), self._policy)
            self.revision += 1
        return subnet.plan.positions[id]


def _neighbour(member: Member | None) -> Neighbour | None:
    if member is None:
        return None
    return Neighbour(id=member.id, address=member.address, port=member.port)
