"""What a responder may answer to a registration; of anything else nothing is taken.

The form of a REGISTERED is checked where it is read. What is in it is a plan that the client acts
by, and settings that it keeps, from somebody who has proven to be a responder and nothing more:

1. neighbour   another client, and not the same one on both sides: a plan has each client once.
2. address     an IP address without a zone, and a port. A responder plans with addresses that it
               has read as such, so a name is none of its making: no resolver is asked for one.
3. settings    those that we know have values that make sense. Others are a newer responder's.

What else there is can do no harm: a token is shown to who gave it, a HEAD proves itself, and a
revision is for people.
"""

from ipaddress import ip_address

from pki import rotation
from pki.errors import MalformedError
from protocol.messages import Neighbour, Registered

__all__ = ["EXPECTED", "fault_of"]

EXPECTED = "a plan with other clients at addresses that can be dialled, and settings in their range"


def fault_of(answer: Registered, *, id: bytes) -> str | None:
    """Why no honest responder gives this answer to the client `id`, or None."""
    sides = [side for side in (answer.forward, answer.backward) if side is not None]
    if id in {side.id for side in sides}:
        return "a neighbour that is ourselves"
    if len({side.id for side in sides}) < len(sides):
        return "one neighbour on both sides"
    for side in sides:
        fault = _fault_of_place(side)
        if fault is not None:
            return fault
    return _fault_of_settings(answer)


def _fault_of_place(side: Neighbour) -> str | None:
    if side.port == 0:
        return "a neighbour at port 0"
    try:
        address = ip_address(side.address)
    except ValueError:
        address = None
    if address is None or "%" in side.address:  # a zone is one of its own machine
        return f"a neighbour at {side.address!a:.80}"
    return None


def _fault_of_settings(answer: Registered) -> str | None:
    for name in rotation.SETTINGS:
        if name in answer.settings:
            try:
                rotation.parse_setting(name, answer.settings[name])
            except MalformedError as exc:
                return str(exc)
    return None
