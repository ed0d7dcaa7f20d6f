"""What befalls a world: a list of acts, drawn from a seed before the world begins.

Each act says what happens, and how many seconds pass before the next one. Machines are named by
their number: 0 is the server, then come its clients, and then, in a world that has a DMZ (one in
four), the hub, the zone servers, and the clients of each zone server in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.acts import (
    Act,
    Admit,
    Bend,
    Clock,
    Cut,
    Dismiss,
    Heal,
    Hold,
    Kill,
    Leap,
    Move,
    Noise,
    Release,
    Reset,
    Revoke,
    Rotate,
    Sleep,
    Steal,
    Storm,
    Struck,
    StruckStore,
    Wake,
)
from tests.simulation.chance import Random, drawn
from tests.simulation.disk import Failure, Strike

__all__ = ["Cast", "Plan", "draw"]

SERVER = 0


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is there, beside the server."""

    clients: int
    """Clients of the server."""
    zones: int = 0
    """Zone servers, with one hub for all; without any there is no hub."""
    outside: int = 0
    """Clients of each zone server."""

    @property
    def hub(self) -> int:
        """Number of the hub, if there is one."""
        return self.clients + 1

    @property
    def zone_servers(self) -> range:
        """Numbers of the zone servers."""
        return range(self.hub + 1, self.hub + 1 + self.zones)

    def behind(self, zone: int) -> range:
        """Numbers of the clients of a zone server."""
        first = self.zone_servers.stop + (zone - self.zone_servers.start) * self.outside
        return range(first, first + self.outside)

    def is_client(self, number: int) -> bool:
        """Whether a number is a client's, wherever it is."""
        return 0 < number < self.hub or number >= self.zone_servers.stop

    @property
    def last(self) -> int:
        """The highest number."""
        return self.clients + (1 + self.zones * (1 + self.outside) if self.zones else 0)

    @property
    def roads(self) -> list[tuple[int, int]]:
        """Pairs that depend on each other, in a world with a DMZ."""
        zones = self.zone_servers
        return [
            (SERVER, self.hub),
            *((SERVER, client) for client in range(1, self.clients + 1)),
            *((self.hub, zone) for zone in zones),
            *((zone, client) for zone in zones for client in self.behind(zone)),
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is there, and what befalls them."""

    seed: int
    cast: Cast
    acts: tuple[tuple[float, Act], ...]
    """Each with the seconds that pass after it."""
    settling: float = 2.0
    """Seconds that pass before the first act."""


WITH_A_DMZ = 4
"""One world in so many has a hub and zone servers."""
SUDDEN = 8
"""One world in so many ends while a rotation is under way."""
FAILURES = (Failure.BEFORE, Failure.MIDDLE, Failure.TORN, Failure.AFTER)
WRONG = (
    timedelta(minutes=-50),
    timedelta(minutes=20),
    timedelta(hours=-30),
    timedelta(days=9),
    timedelta(days=-400),
    timedelta(days=3700),
)


HELD = (20.0, 100.0, 250.0)
"""Seconds; after 300 of silence a link is over at both ends."""


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    chance = drawn(seed, "plan")
    if seed % SUDDEN == SUDDEN - 3:
        return _sudden(seed, chance)
    cast, possible, settling = Cast(chance.randint(3, 5)), ACTS, 2.0
    if seed % WITH_A_DMZ == WITH_A_DMZ - 1:
        cast = Cast(chance.randint(1, 2), chance.randint(1, 2), chance.randint(1, 2))
        possible = {**ACTS, **ZONE_ACTS}
        settling = chance.choice((2.0, 20.0, 40.0))
    acts: list[tuple[float, Act]] = []
    for _ in range(chance.randint(8, 14)):
        make = chance.choices(list(possible), list(possible.values()))[0]
        acts.extend((_pause(chance), act) for act in make(chance, cast))
    return Plan(seed, cast, tuple(acts), settling)


def _sudden(seed: int, chance: Random) -> Plan:
    """A rotation, what befalls it while everybody renews, and no other by which it is repaired.

    What somebody says or asks once is said or asked again by the next one, in other worlds.
    """
    cast = Cast(chance.randint(0, 2), chance.randint(1, 3), chance.randint(0, 2))
    acts: list[tuple[float, Act]] = [(chance.uniform(0, 1.6), Rotate())]
    if chance.random() < 0.3:
        acts = [(30.0, Rotate()), (chance.uniform(0, 1.6), Revoke())]
    for make in chance.choices(FAULTS, k=chance.randint(1, 3)):
        acts.extend((_pause(chance), act) for act in make(chance, cast))
    return Plan(seed, cast, tuple(acts), chance.choice((5.0, 40.0)))


def _pause(chance: Random) -> float:
    """Often hardly anything, so that one thing befalls the other."""
    return round(chance.choice((0.0, 0.05, 1.0, 5.0, 20.0)) * chance.uniform(0.5, 1.5), 3)


def _client(chance: Random, cast: Cast) -> int:
    return chance.randint(1, cast.last)


def _anyone(chance: Random, cast: Cast) -> int:
    return chance.randint(SERVER, cast.last)


def _rotation(chance: Random, cast: Cast) -> list[Act]:
    return [Rotate()]


def _revocation(chance: Random, cast: Cast) -> list[Act]:
    return [Rotate(), Revoke()] if chance.random() < 0.5 else [Revoke()]


def _hours(chance: Random, cast: Cast) -> list[Act]:
    return [Leap(chance.randint(1, 12), 1)]


def _days(chance: Random, cast: Cast) -> list[Act]:
    hours = 24 * chance.randint(1, 15)
    return [Leap(hours, hours)]


def _kill(chance: Random, cast: Cast) -> list[Act]:
    return [Kill(_anyone(chance, cast), chance.random() < 0.3)]


def _struck(chance: Random, cast: Cast) -> list[Act]:
    strike = Strike(chance.choice(FAILURES), kill=chance.random() < 0.7)
    acts: list[Act] = [Struck(_anyone(chance, cast), chance.randint(1, 6), strike)]
    if chance.random() < 0.4:
        acts = [StruckStore(strike)]
    if chance.random() < 0.6:
        acts.append(chance.choice((Rotate(), Revoke())))
    return acts


def _sleep(chance: Random, cast: Cast) -> list[Act]:
    return [Sleep(_client(chance, cast))]


def _wake(chance: Random, cast: Cast) -> list[Act]:
    return [Wake()]


def _cut(chance: Random, cast: Cast) -> list[Act]:
    if cast.zones and chance.random() < 0.8:
        return [Cut(*chance.choice(cast.roads))]
    one, other = chance.sample(range(cast.last + 1), 2)
    return [Cut(one, other)]


def _heal(chance: Random, cast: Cast) -> list[Act]:
    return [Heal()]


def _late(chance: Random, cast: Cast) -> list[Act]:
    """Somebody is heard when he has said something else since."""
    machine = _client(chance, cast)
    acts: list[Act] = [Hold(machine, chance.choice(HELD))]
    if chance.random() < 0.6:
        acts.append(Move(machine) if cast.is_client(machine) else Kill(machine, power=False))
    return acts


def _storm(chance: Random, cast: Cast) -> list[Act]:
    return [Storm(chance.choice((1.0, 5.0, 40.0)), chance.choice((0.01, 0.05)))]


def _noise(chance: Random, cast: Cast) -> list[Act]:
    return [Noise(chance.choice((0.02, 0.1)))]


def _reset(chance: Random, cast: Cast) -> list[Act]:
    return [Reset(chance.choice((0.3, 1.0)))]


def _clock(chance: Random, cast: Cast) -> list[Act]:
    machine = _client(chance, cast)
    return [Clock(machine, chance.choice((*WRONG, timedelta())))]


def _server_clock(chance: Random, cast: Cast) -> list[Act]:
    """Most often a little; and once in a while by years, for a while."""
    if chance.random() < 0.6:
        return [Clock(SERVER, timedelta(minutes=chance.choice((-20, 0, 20))))]
    acts: list[Act] = [Clock(SERVER, chance.choice(WRONG)), Leap(1, 1)]
    if chance.random() < 0.3:
        acts.append(Rotate())
    return [*acts, Clock(SERVER, timedelta())]


def _theft(chance: Random, cast: Cast) -> list[Act]:
    """Stolen, revoked, and used against somebody who may not have heard of it."""
    victim = _client(chance, cast)
    acts: list[Act] = [Steal()]
    if chance.random() < 0.6:
        acts.append(Sleep(victim))
    if chance.random() < 0.7:
        acts += [Rotate(), Steal()]
    acts += [Rotate(), Revoke(), Bend(victim), Wake(), Leap(2, 1)]
    if chance.random() < 0.5:
        acts.append(Release())
    return acts


def _release(chance: Random, cast: Cast) -> list[Act]:
    return [Release()]


def _struck_zone(chance: Random, cast: Cast) -> list[Act]:
    """At a zone server most changes are those of its log."""
    strike = Strike(chance.choice(FAILURES), kill=chance.random() < 0.6)
    zone = chance.choice(cast.zone_servers)
    acts: list[Act] = [Struck(zone, chance.randint(1, 6), strike)]
    if chance.random() < 0.5:
        acts.append(Leap(chance.randint(1, 12), 1))
    return acts


def _dark_zone(chance: Random, cast: Cast) -> list[Act]:
    """A zone server that hears nothing of what goes on inside."""
    acts: list[Act] = [Cut(cast.hub, chance.choice(cast.zone_servers))]
    acts += _revocation(chance, cast)
    if chance.random() < 0.5:
        acts.append(Leap(chance.randint(1, 12), 1))
    return acts


def _false_hub(chance: Random, cast: Cast) -> list[Act]:
    """The thief comes to a zone server as its hub."""
    acts: list[Act] = [Steal(), Bend(chance.choice(cast.zone_servers))]
    acts += [Rotate(), Revoke(), Leap(2, 1)]
    if chance.random() < 0.5:
        acts.append(Release())
    return acts


def _dismissal(chance: Random, cast: Cast) -> list[Act]:
    acts: list[Act] = [Dismiss(chance.choice((cast.hub, *cast.zone_servers)))]
    if chance.random() < 0.5:
        acts += [chance.choice((Rotate(), Leap(1, 1))), Admit()]
    return acts


def _admission(chance: Random, cast: Cast) -> list[Act]:
    return [Admit()]


Maker = Callable[[Random, Cast], list[Act]]

ACTS: dict[Maker, float] = {
    _rotation: 3,
    _revocation: 3,
    _hours: 3,
    _days: 0.5,
    _kill: 3,
    _struck: 4,
    _sleep: 2,
    _wake: 2,
    _cut: 2,
    _heal: 2,
    _late: 1.5,
    _storm: 1.5,
    _noise: 1,
    _reset: 1,
    _clock: 1.5,
    _server_clock: 1,
    _theft: 1.5,
    _release: 1,
}
"""What can befall a world, and how often beside the others."""

ZONE_ACTS: dict[Maker, float] = {
    _struck_zone: 2,
    _dark_zone: 2,
    _false_hub: 1.5,
    _dismissal: 1,
    _admission: 1,
}
"""The same, where there is a DMZ."""

FAULTS: tuple[Maker, ...] = (_cut, _cut, _kill, _reset, _storm, _noise, _late, _struck_zone)
"""What befalls a rotation that is under way."""
