"""The states of a link, and the only moves between them.

                       STRANGER            ADMITTED
    HANDSHAKE ----------------------> HELLO ------+
        |            ADMITTED                     v
        +----------------------------------->   OPEN
        |                             |           |
        +-----------------------------+-----------+--- ENDED ---> CLOSED

1. A state says what is true; a trigger says what happened.
2. What the table does not name cannot happen: `advance` raises `LocalProtocolError`.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from protocol.errors import LocalProtocolError

__all__ = ["TRANSITIONS", "State", "Trigger", "advance"]


class State(Enum):
    """What is true of a link."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = object.__hash__

    HANDSHAKE = auto()
    """Nothing is proven yet."""
    HELLO = auto()
    """Encrypted; the TLS client has shown no chain and has to say what it wants."""
    OPEN = auto()
    """The class and both roles are known: messages flow."""
    CLOSED = auto()
    """Nothing is read or accepted any more."""


class Trigger(Enum):
    """What happened to a link."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = object.__hash__

    STRANGER = auto()
    """The handshake is done, without a client certificate."""
    ADMITTED = auto()
    """The peer is one that this link is for."""
    ENDED = auto()
    """Either side closed, the time was up, or the bytes made no sense."""


TRANSITIONS: Final[Mapping[State, Mapping[Trigger, State]]] = {
    State.HANDSHAKE: {
        Trigger.STRANGER: State.HELLO,
        Trigger.ADMITTED: State.OPEN,
        Trigger.ENDED: State.CLOSED,
    },
    State.HELLO: {Trigger.ADMITTED: State.OPEN, Trigger.ENDED: State.CLOSED},
    State.OPEN: {Trigger.ENDED: State.CLOSED},
    State.CLOSED: {},
}
"""For each state, where each trigger leads."""


def advance(state: State, trigger: Trigger) -> State:
    """Return the state after `trigger`.

    Raises:
        LocalProtocolError: The table has no such move.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError as exc:
        raise LocalProtocolError(f"{trigger.name} cannot happen in {state.name}") from exc
