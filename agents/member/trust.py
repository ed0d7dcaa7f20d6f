"""What this component trusts, kept on disk, and told to whoever must act on a change.

`pki.trust` decides; this room gives it a file, a clock and an audience:

1. A new state is on disk before anything acts on it (decide, persist, speak).
2. `revision` counts the changes of what TLS may trust: the roots and the denied keys, and
   nothing else (*Effect* 2). Whoever holds a context or a link compares revisions.
3. Reports of forged or forked history are log lines here (B10); the state stays as it was.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.runtime.clock import Clock
from agents.runtime.errors import StateError
from agents.runtime.files import Files, TwoGenerations
from agents.runtime.logs import Logger
from agents.runtime.trace import current_trace
from pki import catchup, state, trust
from pki.bundle import Bundle
from pki.errors import (
    ExpiredError,
    MalformedError,
    NotYetValidError,
    PKIError,
    RevokedError,
    RoleError,
)
from pki.heads import Head
from pki.keys import KeyId
from pki.ledger import Chain
from pki.peers import Expectation, Peer, check_peer
from pki.state import TrustState
from pki.steps import Last
from pki.trust import Verdict
from protocol.codes import CloseCode
from protocol.errors import Refusal

__all__ = ["EXPECTED_HISTORY", "REMEDY_OF_REFUSED", "Trust"]

SUPERSEDED = "a chain that supersedes ours was heard; what ours had there is kept"
"""Why there is evidence where nothing was kept out: who had misled us is in it."""

REMEDY_OF_FORK = (
    "compare `pki show` here and at the server: somebody signs with a root of this deployment; "
    "make a new root and revoke the stolen one"
)
EXPECTED_HISTORY = "entries that go on from ours, each signed as the one before it demands"
REMEDY_OF_REFUSED = "nothing if it is rare: others are asked; otherwise treat the source as hostile"


class Trust:
    """The trust state of one component, persisted. Belongs to one event loop.

    Args:
        state: what the file or the bundle said.
        path: the ledger file; two generations of it are kept.
    """

    def __init__(
        self, known: TrustState, *, path: Path, files: Files, clock: Clock, log: Logger
    ) -> None:
        self._hold(known)
        self._file = TwoGenerations(path, files)
        self._clock = clock
        self._log = log
        self._changed = asyncio.Event()
        self.revision = 0
        """Counts changes of the effect: live roots and denied keys (*Effect* 2)."""
        self.cause = ""
        """Trace of what brought the last of these changes: what follows from it carries it on."""

    @classmethod
    def load(cls, path: Path, *, files: Files, clock: Clock, log: Logger) -> "Trust | None":
        """The trust that an earlier run left, or None.

        Raises:
            StateError: both generations of the file are damaged.
        """
        file = TwoGenerations(path, files)
        if not file.exists:
            return None
        data, _ = file.read()
        for torn in file.torn:
            log.warning(
                "ledger.torn",
                source=str(torn),
                reason="checksum does not match; the generation beside it is used",
                remedy="check the disk; what is missing is caught up with",
            )
        try:
            known = state.decode_state(data)
        except PKIError as exc:
            raise StateError(
                f"{path} is damaged: {exc}",
                hint="move it away and start again: the init bundle leads to the same state",
            ) from exc
        return cls(known, path=path, files=files, clock=clock, log=log)

    @staticmethod
    def exists(path: Path, files: Files) -> bool:
        """Whether an earlier run left a trust state here, damaged or not."""
        return TwoGenerations(path, files).exists

    @property
    def state(self) -> TrustState:
        """The state itself; immutable."""
        return self._state

    @property
    def deployment(self) -> bytes:
        """Id of the deployment, 16 bytes."""
        return self._deployment

    @property
    def slots(self) -> tuple[bytes, ...]:
        """Ids of the slots that are known; our own server's first."""
        return tuple(chain.slot for chain in self._state.chains)

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots that TLS trusts, DER (*Effect* 1)."""
        return self._effect.roots

    @property
    def newest_root(self) -> KeyId:
        """KeyID of the current root of the first slot."""
        return state.newest_root(self._state)

    @property
    def trusted(self) -> frozenset[KeyId]:
        """KeyIDs of the roots that TLS trusts."""
        return self._trusted

    @property
    def denied(self) -> frozenset[KeyId]:
        """Single subordinate keys that the counted heads deny."""
        return self._effect.denied

    def chain(self, slot: bytes) -> Chain:
        """The chain of a known slot.

        Raises:
            KeyError: the slot is not known.
        """
        known = self._state.find(slot)
        if known is None:
            raise KeyError(slot.hex())
        return known.chain

    def last(self, slot: bytes) -> Last:
        """Number and id of the last entry of a known slot."""
        return self.chain(slot).last

    def head(self, slot: bytes) -> Head | None:
        """The counted HEAD of a slot, if there is one."""
        known = self._state.find(slot)
        return None if known is None or known.head is None else known.head.head

    def latest_head(self) -> bytes | None:
        """Our first slot's HEAD as it travels, if it names the last entry."""
        return self._state.first.latest_head

    def answer(self, slot: bytes, n: int, entry_id: bytes) -> catchup.Answer:
        """What a LEDGER_GET is answered with (*Catching up* 1)."""
        return catchup.answer(self._state, slot, n, entry_id)

    def has(self, slot: bytes, n: int, entry_id: bytes) -> bool:
        """Whether this is an entry of a chain that we follow."""
        return slot in self.slots and self.chain(slot).has(n, entry_id)

    def persist(self) -> None:
        """Write the state as it is; for a first start."""
        self._file.write(state.encode_state(self._state))

    def entries(
        self,
        slot: bytes,
        first: int,
        entries: Sequence[bytes],
        *,
        source: str,
        log: Logger | None = None,
    ) -> bool:
        """Take everything that a source had to say of a slot; True if it changed our chain.

        Args:
            slot: the slot.
            first: the number of the first of the entries.
            entries: what it said.
            source: who it is, for people.
            log: says more of the source with each line.
        """
        outcome = trust.accept_entries(self._state, slot, first, entries)
        return self._take(outcome, source, log or self._log)

    def bundle(self, bundle: Bundle, *, source: str) -> bool:
        """Take a bundle as one more source; True if its settings apply."""
        outcome, applies = trust.accept_bundle(self._state, bundle)
        self._take(outcome, source, self._log)
        return applies

    def take_head(self, head: bytes, *, source: str, log: Logger | None = None) -> Verdict:
        """Judge a HEAD (*Head* 3); a counted one is on disk on return. Args: see `entries`.

        One that does not count may be old, or from a branch that we do not know, and honest. One
        that its own key has not signed is no HEAD at all, and has its line.
        """
        log = log or self._log
        outcome = trust.accept_head(self._state, head, self._clock.now())
        if outcome.n is None:
            log.warning(
                "ledger.refused",
                source=source,
                expected="a HEAD",
                reason=outcome.reason,
                remedy=REMEDY_OF_REFUSED,
            )
        if outcome.evidence is not None:
            log.error(
                "ledger.forked",
                source=source,
                n=outcome.n,
                reason=outcome.reason,
                remedy=REMEDY_OF_FORK,
            )
        self._adopt(outcome.state)
        return outcome.verdict

    def verifier(
        self, expectation: Callable[[], Expectation]
    ) -> Callable[[tuple[bytes, ...]], Peer]:
        """The question a link asks after its handshake: who is this, and is it expected?"""

        def verify(chain: tuple[bytes, ...]) -> Peer:
            now = self._clock.now()
            try:
                return check_peer(
                    chain, expectation(), roots=self._trusted, denied=self._refused, now=now
                )
            except PKIError as exc:
                raise Refusal(_code(exc), str(exc), time=int(now.timestamp())) from exc

        return verify

    async def changed(self, since: int) -> int:
        """Wait until `revision` is no longer `since`; returns the new one."""
        while self.revision == since:
            await self._changed.wait()
        return self.revision

    def _take(self, outcome: trust.Outcome, source: str, log: Logger) -> bool:
        if outcome.evidence is not None:
            reason = outcome.problem or SUPERSEDED
            log.error(
                "ledger.forked",
                source=source,
                n=outcome.evidence.n,
                reason=reason,
                remedy=REMEDY_OF_FORK,
            )
        elif outcome.problem is not None:
            log.warning(
                "ledger.refused",
                source=source,
                expected=EXPECTED_HISTORY,
                reason=outcome.problem,
                remedy=REMEDY_OF_REFUSED,
            )
        self._adopt(outcome.state)
        if outcome.changed:
            last = self._state.first.chain.last
            self._log.info(
                "ledger.followed",
                source=source,
                n=last.n,
                entry_id=last.id,
                newest_root=self.newest_root,
                roots=len(self.roots),
            )
        return outcome.changed

    def _adopt(self, known: TrustState) -> None:
        """Persist first; then it is the state, and whoever waits hears of it."""
        if known == self._state:
            return
        self._file.write(state.encode_state(known))
        before = self._effect
        self._hold(known)
        if before != self._effect:
            self.revision += 1
            self.cause = current_trace.get()
            self._changed.set()
            self._changed = asyncio.Event()

    def _hold(self, known: TrustState) -> None:
        """Make this the state; what every link asks of it is gathered once, here."""
        self._state = known
        self._deployment = known.deployment
        self._effect = state.effect(known)
        self._trusted = state.trusted(known)
        self._refused = self._effect.denied | state.revoked(known)


def _code(error: PKIError) -> CloseCode:
    match error:
        case ExpiredError():
            return CloseCode.EXPIRED
        case NotYetValidError():
            return CloseCode.CLOCK
        case RevokedError():
            return CloseCode.REVOKED
        case RoleError():
            return CloseCode.WRONG_ROLE
        case MalformedError():
            return CloseCode.PROTOCOL_ERROR
        case _:
            return CloseCode.UNTRUSTED
