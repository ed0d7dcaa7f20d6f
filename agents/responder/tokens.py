"""Registration tokens: which of two machines that share one identity is a copy (F1).

    shows   the token of the last answer, or, where no answer came, what was shown the last time
    gets    a new one, in each answer another

A responder keeps one *round* for each client: what was shown last (`shown`), and what was given
for it (`out`). What is shown is one of three:

1. what was given for `shown`: the next round. It becomes `shown`, `out` is drawn anew, and the
   answer brings `out`. Whatever else was given for the old `shown` is worth nothing from now on.
2. `shown` again: the answer was lost, or this one was late. The round stays as it is, and the
   answer brings a token of its own: a nonce, and its MAC under `out`. All that were given for
   `shown` are good, until one of them is shown.
3. anything else: a copied machine, which has to make itself a new identity.

A client of which nothing is on record is believed, and begins a round (it comes from another
responder, or is new and shows the empty token).

**An honest client is never told.** It shows only what the newest answer that it has heard
brought. Such a token is one that was given for `shown`, or it is `shown` itself, whichever of
its requests were taken, answered, lost or late, over however many links and in any order, for
only what it has heard begins the next round. There is no bound to what was lost in a row, and
nothing to keep for it: the row has two tokens, however many are out.

A request that is late by a round or more is refused, and named in the log like a copy, for it
says no more than a copy would. It changes nothing, and nobody waits for its answer.

**Of two machines one is told.** Each answer brings another token, so from the first answer on
the two hold different ones, and as soon as one has shown its own the other's is neither `shown`
nor given for it. So when both have had two registrations answered, one has been refused. Two
machines that show `shown` again and again, and hear no answer, look like one on a bad network;
they are told apart when they hear.

What is out says nothing to who does not hold the identity key: a token counts on its link only.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agents.responder.records import ClientRecord

__all__ = ["Given", "give"]

OUT_BYTES: Final = 16
NONCE_BYTES: Final = 8
"""Two tokens for one `shown` must differ: a chance of 2^-64 for two machines, once."""
MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Given:
    """What a registration leaves on record, and the token for its answer."""

    shown: bytes | None = field(repr=False)
    out: bytes = field(repr=False)
    token: bytes = field(repr=False)


def give(before: ClientRecord | None, shown: bytes, random: Callable[[int], bytes]) -> Given | None:
    """The round after a client has shown a token, or None: a copied machine shows it.

    Args:
        before: what is on record of the client here.
        shown: the token; empty where the client knows none.
        random: gives tokens and nonces.
    """
    if before is not None and before.token_out is not None:
        out = before.token_out
        if hmac.compare_digest(shown, before.token_shown or b""):
            return Given(before.token_shown, out, _another(out, random(NONCE_BYTES)))
        if not _is_given(out, shown):
            return None
    token = random(OUT_BYTES)
    return Given(shown or None, token, token)


def _another(out: bytes, nonce: bytes) -> bytes:
    """One more token beside `out`."""
    return nonce + hmac.digest(out, nonce, hashlib.sha256)[:MAC_BYTES]


def _is_given(out: bytes, token: bytes) -> bool:
    """Whether it is `out`, or was given beside it."""
    good = out if len(token) == len(out) else _another(out, token[:NONCE_BYTES])
    return hmac.compare_digest(token, good)
