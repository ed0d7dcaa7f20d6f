r"""What this component trusts, and the only way to change it.

Bytes may come from anyone. They become part of a `TrustState` only through

    accept_entries   a chain, or what follows a place in ours
    accept_head      the current root's word for where the chain ends, and what it denies
    accept_bundle    an init bundle: one more source

Each returns the state after it, and a state that is not accepted is the state before: nothing
is half done, and what was kept out changes nothing but the evidence of a fork.

    entries --> cut before the first invalid or unknown (*Chain* 1 to 5)
            --> the same GENESIS as ours, a known slot (*Which chain*)
            --> extends ours, or supersedes it (*Which chain* 1, 2), or is kept out

    head    --> beyond ours: behind, catch up, nothing believed           \
            --> at or below ours, other id, by a root of ours: fork         > *Head* 3 to 5
            --> our last entry, by its current root, newer: counts         /

The effect of a state (*Effect* 1) is its unrevoked roots and its denied keys, after a whole
catch-up: hand in everything that one source had to say, not one piece after the other
(`pki.catchup` collects the pieces). After a change of the effect, and only then, links are made
anew (*Effect* 2). Persist the state before anyone sees it (*Effect* 3).

All slots of the bundle are live. The wall clock, the dates of certificates and the length of a
chain are never used to accept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pki.acknowledgements import make_ack, verify_ack
from pki.bundle import Bundle
from pki.catchup import Answer, Collection, answer
from pki.errors import PKIError
from pki.heads import SignedHead, parse_head
from pki.ledger import MAX_ENTRIES, Chain, read_chain
from pki.state import (
    Effect,
    Fork,
    Slot,
    TrustState,
    decode_state,
    denied,
    effect,
    encode_state,
    newest_root,
    revoked,
    tls_roots,
    trusted,
)
from pki.succession import RULES, Succession, judge

__all__ = [
    "Answer",
    "Collection",
    "Effect",
    "Fork",
    "HeadOutcome",
    "Outcome",
    "Slot",
    "Succession",
    "TrustState",
    "Verdict",
    "accept_bundle",
    "accept_entries",
    "accept_head",
    "answer",
    "decode_state",
    "denied",
    "effect",
    "encode_state",
    "from_bundle",
    "from_chain",
    "make_ack",
    "newest_root",
    "revoked",
    "tls_roots",
    "trusted",
    "verify_ack",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of entries."""

    state: TrustState
    changed: bool
    """Whether the chain is another one. (The state can also differ by new evidence.)"""
    problem: str | None = None
    """Why something of what arrived was left out, for the log."""
    evidence: Fork | None = None
    succession: Succession = Succession.SAME


class Verdict(StrEnum):
    """What a head is to us."""

    COUNTED = "counted"
    SAME = "same"
    """The one that counts already."""
    BEHIND = "behind"
    """It names an entry beyond ours: catch up. Nothing in it is believed."""
    FORK = "fork"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class HeadOutcome:
    """What has become of a head."""

    state: TrustState
    verdict: Verdict
    reason: str = ""
    n: int | None = None
    """The entry number that it names."""
    evidence: Fork | None = None
    ahead: float = 0.0
    """Seconds by which its writer's clock is before ours; to be shown, decides nothing."""


def from_chain(chain: Chain, *, head: bytes | None = None) -> TrustState:
    """The state of the server that has just made this chain.

    Args:
        chain: Its chain.
        head: Its first head.

    Raises:
        MalformedError, SignatureError: The head is not well-formed.
    """
    state = TrustState((Slot(chain),))
    return state if head is None else _count(state, state.first, parse_head(head)).state


def from_bundle(bundle: Bundle) -> TrustState:
    """The state of a component that knows nothing but a bundle."""
    state = TrustState(tuple(Slot(chain) for chain in bundle.chains))
    return _accept_heads(state, bundle)


def accept_bundle(state: TrustState, bundle: Bundle) -> tuple[Outcome, bool]:
    """Hear a bundle as one more source; slots that are not known yet are not added.

    Returns:
        The outcome, and whether its settings apply: its chains are ours, or replace ours.
    """
    if bundle.deployment != state.deployment:
        return Outcome(state, False, "bundle of another deployment"), False
    applies = True
    outcome = Outcome(state, False)
    for chain in bundle.chains:
        step = accept_entries(outcome.state, chain.slot, 0, chain.encoded)
        applies = applies and step.succession in {Succession.SAME, *RULES}
        outcome = Outcome(
            step.state,
            outcome.changed or step.changed,
            step.problem or outcome.problem,
            step.evidence or outcome.evidence,
            step.succession,
        )
    return replace(outcome, state=_accept_heads(outcome.state, bundle)), applies


def _accept_heads(state: TrustState, bundle: Bundle) -> TrustState:
    for data in bundle.heads:
        signed = parse_head(data)
        slot = state.find(signed.head.slot)
        if slot is not None:
            state = _count(state, slot, signed).state
    return state


def accept_entries(
    state: TrustState, slot: bytes, first_n: int, entries: Sequence[bytes]
) -> Outcome:
    """Hear entries from anyone: *Chain* and *Which chain*.

    Args:
        state: What is believed now.
        slot: Whose entries they are said to be.
        first_n: Number of the first of them: ours up to there is taken as before them.
        entries: Everything that this source had to say, in order.
    """
    known = state.find(slot)
    if known is None:
        return Outcome(state, False, "unknown slot", None, Succession.FOREIGN)
    ours = known.chain
    if not 0 <= first_n <= len(ours.entries):
        return Outcome(state, False, f"entries from {first_n}, which does not follow ours")
    before = ours.encoded[:first_n]
    theirs, cut = read_chain([*before, *entries], known=ours)
    problem = None if cut is None else str(cut)
    if theirs is None:
        return Outcome(state, False, problem, None, Succession.FOREIGN)
    succession = judge(ours, theirs)
    evidence = _difference(ours, theirs) if theirs.slot == slot else None
    if succession in RULES:
        return Outcome(
            state.replacing(_replaced(known, theirs, succession, evidence)),
            True,
            problem,
            evidence,
            succession,
        )
    if succession is Succession.FORKS and evidence is not None:
        problem = f"entry {evidence.n}: differs from ours, and does not supersede it"
        kept = state.replacing(known.with_evidence(evidence))
        return Outcome(kept, False, problem, evidence, succession)
    if succession is Succession.FOREIGN:
        problem = "entry 0: of another slot"
    return Outcome(state, False, problem, None, succession)


def _replaced(known: Slot, chain: Chain, succession: Succession, evidence: Fork | None) -> Slot:
    """The slot with another chain, and of its head what *Head* 6 keeps."""
    if succession is Succession.SUPERSEDES:
        fresh = Slot(chain, None, None, known.forks)
        return fresh if evidence is None else fresh.with_evidence(evidence)
    rotated = len(chain.roots) > len(known.chain.roots)
    return replace(known, chain=chain, time=None if rotated else known.time)


def _difference(ours: Chain, theirs: Chain) -> Fork | None:
    """Where two chains differ, if both go on there."""
    n = ours.common(theirs)
    if n >= min(len(ours.entries), len(theirs.entries)):
        return None
    return Fork(n, ours.entries[n].encode(), theirs.entries[n].encode())


def accept_head(state: TrustState, head: bytes, now: datetime) -> HeadOutcome:
    """Hear a head from anyone: *Head* 3 to 5. Never raises for what is in it.

    Args:
        state: What is believed now.
        head: As it arrived.
        now: Policy time, only to say how far the writer's clock is from ours.
    """
    try:
        signed = parse_head(head)
    except PKIError as exc:
        return HeadOutcome(state, Verdict.IGNORED, str(exc))
    slot = state.find(signed.head.slot)
    if slot is None:
        return HeadOutcome(state, Verdict.IGNORED, "unknown slot", signed.head.n)
    ahead = signed.head.time - now.timestamp()
    return replace(_count(state, slot, signed), n=signed.head.n, ahead=ahead)


def _count(state: TrustState, slot: Slot, signed: SignedHead) -> HeadOutcome:
    head, chain = signed.head, slot.chain
    if head.n >= MAX_ENTRIES:
        return HeadOutcome(state, Verdict.IGNORED, "beyond the limit of a chain")
    if head.n > chain.last.n:
        return HeadOutcome(state, Verdict.BEHIND, f"ours ends at {chain.last.n}")
    if not chain.has(head.n, head.entry_id):
        return _fork(state, slot, signed)
    for check in HEAD_CHECKS:
        reason = check(slot, signed)
        if reason is not None:
            return HeadOutcome(state, Verdict.IGNORED, reason)
    if slot.head is not None and slot.head.body == signed.body:
        return HeadOutcome(state, Verdict.SAME)
    counted = replace(slot, head=signed, time=head.time)
    return HeadOutcome(state.replacing(counted), Verdict.COUNTED)


def _fork(state: TrustState, slot: Slot, signed: SignedHead) -> HeadOutcome:
    if signed.key_id not in slot.chain.state.key_ids:
        return HeadOutcome(state, Verdict.IGNORED, "names another entry, signed by a stranger")
    n = signed.head.n
    fork = Fork(n, slot.chain.entries[n].encode(), signed.encoded)
    kept = state.replacing(slot.with_evidence(fork))
    return HeadOutcome(kept, Verdict.FORK, f"names another entry {n} than ours", n, fork)


def _by_current_root(slot: Slot, signed: SignedHead) -> str | None:
    if signed.key_id == slot.chain.current_root.key_id:
        return None
    return f"signed by {signed.key_id.hex()}, not by the current root"


def _names_last(slot: Slot, signed: SignedHead) -> str | None:
    if signed.head.n == slot.chain.last.n:
        return None
    return f"names entry {signed.head.n}, ours ends at {slot.chain.last.n}"


def _is_newer(slot: Slot, signed: SignedHead) -> str | None:
    if slot.time is None or signed.head.time > slot.time:
        return None
    if slot.head is not None and slot.head.body == signed.body:
        return None
    return f"time {signed.head.time}, the last counted one has {slot.time}"


HEAD_CHECKS = (_names_last, _by_current_root, _is_newer)
"""Why a head that names an entry of ours does not count; each gives the reason, or `None`."""
