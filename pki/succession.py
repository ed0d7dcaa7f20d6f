"""Which of two chains of one slot is to be believed.

Both are valid, and both begin with the same GENESIS. Ours stays, unless

7. extend      theirs begins with ours, or
9. supersede   its roots begin with all of ours, and then comes our next[0].

Length decides nothing, nor does any date. The holder of a root that is old but not revoked can
write as long a branch as he likes after the place where that root was current: he lacks our
later roots. A forged branch, signed by stolen old roots to a client that was that far behind,
can only hold honest roots up to the depth of the commitment, and fewer than the honest chain:
so the honest chain supersedes it as soon as it is heard once.

(Rule 8 gives a recovery the last word. No entry of a known kind is a recovery.)
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from pki.ledger import Chain

__all__ = ["RULES", "Succession", "judge"]


class Succession(StrEnum):
    """What another chain is to ours."""

    SAME = "same"
    """It ends where ours ends."""
    EXTENDS = "extends"
    SUPERSEDES = "supersedes"
    BEHIND = "behind"
    """A beginning of ours."""
    FORKS = "forks"
    """It differs from ours and has no right to replace it."""
    FOREIGN = "foreign"
    """Of another slot."""


def _extends(ours: Chain, theirs: Chain) -> bool:
    return theirs.begins_with(ours)


def _supersedes(ours: Chain, theirs: Chain) -> bool:
    roots = ours.state.key_ids
    return theirs.state.key_ids[: len(roots) + 1] == (*roots, ours.state.next[0])


RULES: Final[dict[Succession, Callable[[Chain, Chain], bool]]] = {
    Succession.EXTENDS: _extends,
    Succession.SUPERSEDES: _supersedes,
}
"""The only reasons for which theirs replaces ours, in the order in which they are asked."""


def judge(ours: Chain, theirs: Chain) -> Succession:
    """Compare two valid chains; only those that `RULES` names may replace ours."""
    if ours.slot != theirs.slot:
        return Succession.FOREIGN
    if ours.last == theirs.last:
        return Succession.SAME
    if ours.begins_with(theirs):
        return Succession.BEHIND
    for name, holds in RULES.items():
        if holds(ours, theirs):
            return name
    return Succession.FORKS
