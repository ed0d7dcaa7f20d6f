"""May this root be revoked, and may another be made (B2, B16)? The answer, and its reason.

it is the newest root             refused: everything would stop; make a newer one first
it is revoked already             refused
the newer root is under 7 days    only if the key is in doubt: some may still be moving
somebody has not moved            asked once more, with the names

a root younger than 182 days      asked once more: rotating more often gains nothing
the newest root is over 365 days  a warning in status and log
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from pki.keys import KeyId
from pki.ledger import Chain

__all__ = ["SETTLING", "Judgement", "Verdict", "judge_revoke"]

SETTLING = timedelta(days=7)
"""How long everybody may take to move to a new root before the old one is revoked."""


class Verdict(Enum):
    """What is to be done with a request to revoke."""

    GO = auto()
    REFUSED = auto()
    ONLY_IN_DOUBT = auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and its reason for people."""

    verdict: Verdict
    why: str


def judge_revoke(
    chain: Chain, root: KeyId, *, newest_created: datetime, now: datetime, in_doubt: bool
) -> Judgement:
    """Whether a root of `chain` may be revoked now."""
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
    return Judgement(Verdict.GO, "a newer root has taken over")


def _days(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
