"""What befalls a world: a list of acts, drawn from a seed before the world begins.

Each act says what happens, and how many seconds pass before the next one. Machines are named by
their number: 0 is the server, then come the clients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.chance import Random, drawn
from tests.simulation.disk import Failure, Strike

__all__ = [
    "Act",
    "Bend",
    "Clock",
    "Cut",
    "Heal",
    "Kill",
    "Leap",
    "Plan",
    "Release",
    "Reset",
    "Revoke",
    "Rotate",
    "Sleep",
    "Steal",
    "Storm",
    "Struck",
    "StruckStore",
    "Wake",
    "draw",
]

SERVER = 0


@dataclass(frozen=True, slots=True)
class Rotate:
    """The administrator makes a new root."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """The administrator revokes every root but the newest."""


@dataclass(frozen=True, slots=True)
class Leap:
    """Policy time passes, in steps."""

    hours: int
    step: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A program is killed, or its machine loses power."""

    machine: int
    power: bool


@dataclass(frozen=True, slots=True)
class Struck:
    """One of the next writes of a machine fails."""

    machine: int
    change: int
    strike: Strike


@dataclass(frozen=True, slots=True)
class StruckStore:
    """The next write of the server's database fails."""

    strike: Strike


@dataclass(frozen=True, slots=True)
class Sleep:
    """A machine is shut down."""

    machine: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Every machine that was shut down is switched on."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes between two machines."""

    one: int
    other: int


@dataclass(frozen=True, slots=True)
class Heal:
    """Every cut is healed, and the weather is fine."""


@dataclass(frozen=True, slots=True)
class Storm:
    """Connections are slow, and break."""

    slow: float
    loss: float


@dataclass(frozen=True, slots=True)
class Reset:
    """A share of all connections is reset."""

    share: float


@dataclass(frozen=True, slots=True)
class Clock:
    """A machine's clock is set wrong; 0 sets it right."""

    machine: int
    wrong: timedelta


@dataclass(frozen=True, slots=True)
class Steal:
    """The thief copies the server's keys."""


@dataclass(frozen=True, slots=True)
class Bend:
    """Everything that a machine dials reaches the thief, and nobody else reaches it."""

    machine: int


@dataclass(frozen=True, slots=True)
class Release:
    """The thief's network is taken from him."""


Act = (
    Rotate
    | Revoke
    | Leap
    | Kill
    | Struck
    | StruckStore
    | Sleep
    | Wake
    | Cut
    | Heal
    | Storm
    | Reset
    | Clock
    | Steal
    | Bend
    | Release
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is there, and what befalls them."""

    seed: int
    clients: int
    acts: tuple[tuple[float, Act], ...]
    """Each with the seconds that pass after it."""


FAILURES = (Failure.BEFORE, Failure.MIDDLE, Failure.TORN, Failure.AFTER)
WRONG = (
    timedelta(minutes=-50),
    timedelta(minutes=20),
    timedelta(hours=-30),
    timedelta(days=9),
    timedelta(days=-400),
    timedelta(days=3700),
)


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    chance = drawn(seed, "plan")
    clients = chance.randint(3, 5)
    acts: list[tuple[float, Act]] = []
    for _ in range(chance.randint(8, 14)):
        make = chance.choices(list(ACTS), list(ACTS.values()))[0]
        acts.extend((_pause(chance), act) for act in make(chance, clients))
    return Plan(seed, clients, tuple(acts))


def _pause(chance: Random) -> float:
    """Often hardly anything, so that one thing befalls the other."""
    return round(chance.choice((0.0, 0.05, 1.0, 5.0, 20.0)) * chance.uniform(0.5, 1.5), 3)


def _client(chance: Random, clients: int) -> int:
    return chance.randint(1, clients)


def _anyone(chance: Random, clients: int) -> int:
    return chance.randint(SERVER, clients)


def _rotation(chance: Random, clients: int) -> list[Act]:
    return [Rotate()]


def _revocation(chance: Random, clients: int) -> list[Act]:
    return [Rotate(), Revoke()] if chance.random() < 0.5 else [Revoke()]


def _hours(chance: Random, clients: int) -> list[Act]:
    return [Leap(chance.randint(1, 12), 1)]


def _days(chance: Random, clients: int) -> list[Act]:
    hours = 24 * chance.randint(1, 15)
    return [Leap(hours, hours)]


def _kill(chance: Random, clients: int) -> list[Act]:
    return [Kill(_anyone(chance, clients), chance.random() < 0.3)]


def _struck(chance: Random, clients: int) -> list[Act]:
    strike = Strike(chance.choice(FAILURES), kill=chance.random() < 0.7)
    acts: list[Act] = [Struck(_anyone(chance, clients), chance.randint(1, 6), strike)]
    if chance.random() < 0.4:
        acts = [StruckStore(strike)]
    if chance.random() < 0.6:
        acts.append(chance.choice((Rotate(), Revoke())))
    return acts


def _sleep(chance: Random, clients: int) -> list[Act]:
    return [Sleep(_client(chance, clients))]


def _wake(chance: Random, clients: int) -> list[Act]:
    return [Wake()]


def _cut(chance: Random, clients: int) -> list[Act]:
    one, other = chance.sample(range(clients + 1), 2)
    return [Cut(one, other)]


def _heal(chance: Random, clients: int) -> list[Act]:
    return [Heal()]


def _storm(chance: Random, clients: int) -> list[Act]:
    return [Storm(chance.choice((1.0, 5.0, 40.0)), chance.choice((0.01, 0.05)))]


def _reset(chance: Random, clients: int) -> list[Act]:
    return [Reset(chance.choice((0.3, 1.0)))]


def _clock(chance: Random, clients: int) -> list[Act]:
    machine = _client(chance, clients)
    return [Clock(machine, chance.choice((*WRONG, timedelta())))]


def _server_clock(chance: Random, clients: int) -> list[Act]:
    """Most often a little; and once in a while by years, for a while."""
    if chance.random() < 0.6:
        return [Clock(SERVER, timedelta(minutes=chance.choice((-20, 0, 20))))]
    acts: list[Act] = [Clock(SERVER, chance.choice(WRONG)), Leap(1, 1)]
    if chance.random() < 0.3:
        acts.append(Rotate())
    return [*acts, Clock(SERVER, timedelta())]


def _theft(chance: Random, clients: int) -> list[Act]:
    """Stolen, revoked, and used against somebody who may not have heard of it."""
    victim = _client(chance, clients)
    acts: list[Act] = [Steal()]
    if chance.random() < 0.6:
        acts.append(Sleep(victim))
    if chance.random() < 0.7:
        acts += [Rotate(), Steal()]
    acts += [Rotate(), Revoke(), Bend(victim), Wake(), Leap(2, 1)]
    if chance.random() < 0.5:
        acts.append(Release())
    return acts


def _release(chance: Random, clients: int) -> list[Act]:
    return [Release()]


ACTS: dict[Callable[[Random, int], list[Act]], float] = {
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
    _storm: 1.5,
    _reset: 1,
    _clock: 1.5,
    _server_clock: 1,
    _theft: 1.5,
    _release: 1,
}
"""What can befall a world, and how often beside the others."""
