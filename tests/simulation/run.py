"""One seed, played to its end and judged.

In the end, some minutes after the last fault:

    everybody follows     the server, the hub, every zone server and every client stand at the same
                          entry, with a counted HEAD; every certificate in use ends at the newest
                          root, is in date, and is on record where it was issued; every client is
                          registered and in its place; the server knows the clients of each zone
                          server, and counts everybody as moved
    nobody trusts         no door opens to a fresh certificate under a stolen, revoked root, and no
                          link stands that was made under one
    no damage stands      a link of which a byte was changed on the way is no more
    nothing is lost       what was promised is there (`watch` has looked all the time), the server
                          has the keys of the next roots, and none of a revoked one; it has been
                          told of every certificate that a zone server has signed
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pki.certificates import Kind
from pki.issuance import Issuer
from pki.names import Role
from tests.simulation.machine import GoneError, Machine
from tests.simulation.plan import Plan, draw
from tests.simulation.world import World, world

__all__ = ["Result", "play"]

NOTICED: Final = 330.0
"""Seconds in which a changed byte must end its link: a silence has to pass first if it was a
length."""
PATIENCE: Final = 1800.0
"""Seconds in which everything must become well: some rounds of the longest back-offs."""


@dataclass(frozen=True)
class Result:
    """What became of one seed."""

    plan: Plan
    broken: tuple[str, ...]
    trace: tuple[str, ...]
    seconds: float
    """How long the world lasted, in its own time."""
    connections: int
    thefts: int
    fooled: int
    """Clients that took the thief for their server for a while."""

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {len(self.broken)} broken", *self.broken]
        return "\n".join(lines)


def play(seed: int | Plan, *, patience: float = PATIENCE) -> Result:
    """Play a seed, or a plan of one's own; in `patience` seconds everything must become well."""
    plan = draw(seed) if isinstance(seed, int) else seed
    with world(plan) as made:
        made.loop.run_until_complete(_course(made, patience))
        watch = made.watch
        return Result(
            plan,
            tuple(dict.fromkeys(watch.broken)),
            tuple(watch.trace),
            made.loop.now,
            made.network.opened,
            len(made.thief.loot.roots),
            len(made.thief.fooled),
        )


async def _course(made: World, patience: float) -> None:
    await made.begin()
    await made.play()
    await made.calm()
    well = await made.until(lambda: not _behind(made), patience)
    if not well:
        for who, what in _behind(made):
            made.watch.fail(who, f"does not follow: {what}")
        return
    await _count(made)
    await _open_the_safe(made)
    _compare_counts(made)
    _look_at_links(made)
    await _knock(made)
    made.watch.check_kept()


def _behind(made: World) -> list[tuple[str, str]]:
    """Who is not yet where everybody must come to, and why."""
    server = made.server.part
    if server is None or not made.ready:
        return [("server", "it is down")]
    found = [("server", what) for what in _server_lacks(made, server)]
    found += _all_lack(made.hubs, lambda hub: _hub_lacks(made, server, hub))
    found += _all_lack(made.zones, lambda zone: _zone_lacks(made, server, zone))
    found += _all_lack(made.clients, lambda one: _client_lacks(made, server, one, made.server))
    for zone, group in zip(made.zones, made.behind, strict=True):
        if zone.part is not None:
            found += _all_lack(group, partial(_outsider_lacks, made, server, zone))
    return found


def _all_lack(
    machines: Iterable[Machine], lacks: Callable[[Machine], Iterator[str]]
) -> Iterator[tuple[str, str]]:
    for machine in machines:
        if machine.part is None:
            yield machine.name, "it is down"
        else:
            yield from ((machine.name, what) for what in lacks(machine))


def _server_lacks(made: World, server: Any) -> Iterator[str]:  # noqa: ANN401
    if not server.authority.can_sign:
        yield "it cannot sign"
    if server.trust.latest_head() is None:
        yield "its HEAD names another entry than its last"
    for kind in (Kind.SERVER_TLS, Kind.CLIENT_CA, Kind.MESSAGE_SIGNING):
        yield from _credential_lacks(made, server, server.keyring.credential(kind), kind)


def _member_lacks(server: Any, member: Any) -> Iterator[str]:  # noqa: ANN401
    trust, slot = member.trust, server.trust.slots[0]
    if trust.last(slot) != server.trust.last(slot):
        yield f"it stands at entry {trust.last(slot).n}"
    elif trust.latest_head() is None:
        yield "no HEAD counts for its last entry"


def _hub_lacks(made: World, server: Any, machine: Machine) -> Iterator[str]:  # noqa: ANN401
    hub = machine.part
    yield from _member_lacks(server, hub.member)
    held = hub.member.keyring.credential(Kind.HUB_TLS)
    yield from _credential_lacks(made, server, held, Kind.HUB_TLS)
    if hub.uplink.link is None or hub.uplink.link.is_closed:
        yield "it has no link to the server"


def _zone_lacks(made: World, server: Any, machine: Machine) -> Iterator[str]:  # noqa: ANN401
    zone = machine.part
    yield from _member_lacks(server, zone.member)
    for kind in (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA):
        yield from _credential_lacks(made, server, zone.keyring.credential(kind), kind)
    if zone._hub() is None:
        yield "it has no link to a hub"
    if not server.infrastructure.zone_present(zone.member.id):
        yield "the server does not hear of it"
        return
    signed = zone.records.signed
    if server.infrastructure.zones[zone.member.id].issued != signed:
        yield "the server was told of another number of certificates than it has signed"


def _client_lacks(made: World, server: Any, machine: Machine, at: Machine) -> Iterator[str]:  # noqa: ANN401
    """Args: at: the server or zone server that it reports to."""
    client, registry = machine.part, at.part.registry
    yield from _member_lacks(server, client.member)
    held = client.keyring.credential(Kind.CLIENT_TLS)
    yield from _credential_lacks(made, server, held, Kind.CLIENT_TLS)
    row = registry.row(client.member.id)
    if row is None or not row.present:
        yield "it is not registered"
    elif row.record.port != machine.port:
        yield "it is known where it does not listen any more"
    chain = client.chain
    if chain.place.forward is not None and (chain.forward is None or not chain.forward.is_open):
        yield "it has no link to its forward neighbour"
    if row is not None and row.position is not None:
        meant = row.position.forward.id if row.position.forward else None
        holds = chain.place.forward.id if chain.place.forward else None
        if meant != holds:
            yield "it stands beside another than planned"


def _outsider_lacks(
    made: World,
    server: Any,  # noqa: ANN401
    zone: Machine,
    machine: Machine,
) -> Iterator[str]:
    yield from _client_lacks(made, server, machine, zone)
    client, id = machine.part, zone.part.member.id
    held = client.keyring.credential(Kind.CLIENT_TLS)
    if held is not None and held.issuer_id != id:
        yield "its certificate is of another issuer than its zone server"
    row = server.registry.row(client.member.id)
    if row is None or not row.present or row.record.responder != id:
        yield "the server was not told of it"
    elif row.record.port != machine.port:
        yield "the server knows it where it does not listen any more"


def _credential_lacks(made: World, server: Any, held: Any, kind: Kind) -> Iterator[str]:  # noqa: ANN401
    if held is None:
        yield f"it has no {kind}"
        return
    now = made.era.now()
    if held.root != server.trust.newest_root:
        yield f"its {kind} is under an older root"
    if not held.leaf.not_before <= now < held.leaf.not_after:
        yield f"its {kind} is not in date: {held.leaf.not_before} to {held.leaf.not_after}"
    if not made.watch.is_recorded(held):
        yield f"its {kind} is on no record"


async def _count(made: World) -> None:
    """The server's own count of who has moved (B12): all, and soon."""

    async def rows() -> list[str]:
        try:
            coverage = await made.administer(lambda operations: operations.coverage(None))
        except GoneError:
            return ["nobody answers"]
        return [f"{row['host']}: {row['why']}" for row in coverage["behind"]]

    end = made.loop.now + 300.0
    while (behind := await rows()) and made.loop.now < end:
        await made.until(lambda: False, 5.0)
    for what in behind:
        made.watch.fail("server", f"counts as not moved: {what}")


async def _open_the_safe(made: World) -> None:
    """The private halves that the server holds are those that it should."""

    async def held(operations: Any) -> tuple[set[bytes], set[bytes]]:  # noqa: ANN401
        server = operations._server
        return set(server.standby.load()), set(server.keyring.root_ids)

    standby, roots = await made.administer(held)
    chain = made.server.part.authority.chain
    if not standby >= set(chain.state.next):
        made.watch.fail("server", "has lost standby keys that it has committed to")
    if len(standby) > len(chain.state.next) + 1:
        made.watch.fail("server", "holds more standby keys than one rotation can leave behind")
    if not roots <= set(chain.state.key_ids):
        made.watch.fail("server", "holds the key of a root to come beside that of the newest")
    if roots & chain.revoked:
        made.watch.fail("server", "holds the key of a revoked root")


def _compare_counts(made: World) -> None:
    """A zone server has counted every certificate of its own that somebody has used."""
    for zone in made.zones:
        used = len(made.watch.handed.get(made.watch.id_of(zone) or b"", ()))
        if zone.part.records.signed < used:
            made.watch.fail(zone.name, f"has forgotten of {used} certificates that it signed some")


def _look_at_links(made: World) -> None:
    for end in made.network.ends:
        if end.damaged_at is not None and made.loop.now - end.damaged_at > NOTICED:
            made.watch.fail("somebody", f"keeps a link of which a byte was changed: {end!r}")
    for machine in made.machines:
        part = machine.part
        for link in part.links if part is not None else ():
            if link.peer is not None and link.peer.root not in part.member.trust.trusted:
                made.watch.fail(machine.name, f"keeps a link under a revoked root: {link!r}")


async def _knock(made: World) -> None:
    """The thief tries every door with what he has: of revoked roots nothing opens any."""
    server = made.server.part
    chain = server.authority.chain
    stolen = made.thief.issuers([r.key_id for r in chain.roots if r.key_id in chain.revoked])
    every = [root.der for root in chain.roots]
    for issuer in stolen[-1:]:
        victim = made.clients[0].part.member.id
        for role in (Role.CLIENT, Role.HUB):
            if await made.thief.knock(made.server.address, issuer, role, victim, every):
                made.watch.fail("server", f"lets the thief in as a {role}")
        for machine in made.clients:
            other = made.clients[machine is made.clients[0] and len(made.clients) > 1]
            if await made.thief.knock(
                machine.address,
                issuer,
                Role.CLIENT,
                other.part.member.id,
                every,
                port=machine.port,
            ):
                made.watch.fail(machine.name, "lets the thief in")
        for zone, group in zip(made.zones, made.behind, strict=True):
            await _knock_outside(made, issuer, zone, group, every)


async def _knock_outside(
    made: World, issuer: Issuer, zone: Machine, group: list[Machine], every: list[bytes]
) -> None:
    """The same at a zone server's two doors, and at those of its clients."""
    id, victim = zone.part.member.id, group[0].part.member.id
    for machine in (zone, *group):
        if await made.thief.knock(
            machine.address, issuer, Role.CLIENT, victim, every, responder=id, port=machine.port
        ):
            made.watch.fail(machine.name, "lets the thief in as a client")
    if await made.thief.knock_as_hub(zone.address, issuer, every):
        made.watch.fail(zone.name, "lets the thief in as a hub")
