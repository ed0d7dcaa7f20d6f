"""May this root be revoked, and may another be made (B2, B16)? The answer, and its reason.

it is the newest root             refused: everything would stop; make a newer one first
it is revoked already             refused
the newer root is under 7 days    only if the key is in doubt: some may still be moving
somebody has not moved            asked once more, with the names: a confirmation is for those who
                                  were shown, and not for who has fallen behind since

a root younger than 182 days      asked once more: rotating more often gains nothing
the newest root is over 365 days  a warning in status and log
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from agents.server.coverage import CoverageRow
from pki.keys import KeyId
from pki.ledger import Chain

__all__ = ["SETTLING", "Confirmation", "Judgement", "Verdict", "judge_revoke"]

SETTLING = timedelta(days=7)
"""How long everybody may take to move to a new root before the old one is revoked."""


NAMED = 5
"""How many are named of those who have not moved."""


class Verdict(Enum):
    """What is to be done with a request to revoke."""

    GO = auto()
    REFUSED = auto()
    ONLY_IN_DOUBT = auto()
    CONFIRM = auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and its reason for people."""

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Somebody has said yes."""

    shown: frozenset[bytes] | None = None
    """Component ids that were shown to him as not moved; None: whoever it is."""


def judge_revoke(
    chain: Chain,
    root: KeyId,
    *,
    newest_created: datetime,
    now: datetime,
    in_doubt: bool,
    behind: Sequence[CoverageRow] = (),
    confirmed: Confirmation | None = None,
) -> Judgement:
    """Whether a root of `chain` may be revoked now.

    Args:
        chain: the ledger as it is.
        root: one of its roots.
        newest_created: when the newest root was made.
        now: policy time.
        in_doubt: whether others may have the key.
        behind: everybody who has not moved to the newest root.
        confirmed: what was said to that, if anything.
    """
    if root == chain.current_root.key_id:
        return Judgement(Verdict.REFUSED, "it is the newest root: create a new one first")
    if root in chain.revoked:
        return Judgement(Verdict.REFUSED, "it is revoked already")
    age = now - newest_created
    if age < SETTLING and not in_doubt:
        return Judgement(
            Verdict.ONLY_IN_DOUBT,
            f"the newer root is {_days(age)} old, and components may take {SETTLING.days} days",
        )
    shown: frozenset[bytes] | None = frozenset() if confirmed is None else confirmed.shown
    left = [row for row in behind if shown is not None and row.component.id not in shown]
    if left:
        names = ", ".join(row.component.host or row.component.id.hex() for row in left[:NAMED])
        what = "have not moved yet" if confirmed is None else "have fallen behind since"
        return Judgement(Verdict.CONFIRM, f"{len(left)} {what}: {names}")
    return Judgement(Verdict.GO, "a newer root has taken over")


def _days(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
