"""What can befall a world.

Machines are named by their number (`plan`).
"""

from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.disk import Strike

__all__ = [
    "Act",
    "Admit",
    "Bend",
    "Clock",
    "Cut",
    "Dismiss",
    "Heal",
    "Hold",
    "Kill",
    "Leap",
    "Move",
    "Noise",
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
]


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
class Hold:
    """What goes both ways on the connections that a machine has now is held back.

    It arrives later, when the machine may have made others and said something else on them.
    """

    machine: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Move:
    """A client is told to listen on another port, and started anew."""

    machine: int


@dataclass(frozen=True, slots=True)
class Storm:
    """Connections are slow, and break."""

    slow: float
    loss: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes are damaged on the way."""

    share: float


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


@dataclass(frozen=True, slots=True)
class Dismiss:
    """The administrator takes the approval of a hub or a zone server back."""

    machine: int


@dataclass(frozen=True, slots=True)
class Admit:
    """The administrator approves again whom he had dismissed."""


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
    | Hold
    | Move
    | Storm
    | Noise
    | Reset
    | Clock
    | Steal
    | Bend
    | Release
    | Dismiss
    | Admit
)
