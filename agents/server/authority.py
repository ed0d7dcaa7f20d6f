"""The server's roots: made, succeeded, revoked, and everything that they sign.

Every operation is prepared, persisted, and only then visible. The ledger file is the
commit point; what is prepared before it is harmless without it, and `reconcile` (which every
start runs) removes or completes it:

    new root    1. standby.db gains the key that the new commitment names
                2. pki.db gains the private half of the next root
                3. the ledger gains ROTATE                            <- it has happened
                4. standby.db loses the key that is a root now; pki.db all but two roots
                5. the server's own keys are renewed, client CA first
                6. HEAD by the new root; only then is anybody told
    revoke      1. the ledger gains REVOKE                            <- it has happened
                2. pki.db loses the private half (B3)
                3. HEAD, and everybody is told

Without the current root's key (an old backup) nothing is signed at all.
"""

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from agents.member.keyring import Keyring
from agents.member.trust import Trust
from agents.responder.issuing import Issuing, Terms
from agents.responder.records import IssuanceRecord
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError
from agents.runtime.logs import Logger
from agents.server.standby import Standby
from pki import certificates, entries, heads, issuance, keys, ledger
from pki.certificates import Facts, Kind
from pki.errors import RefusedError
from pki.issuance import Issuer
from pki.keys import KeyId, PrivateKey
from pki.ledger import Chain
from pki.rotation import Policy

__all__ = ["OWN_KINDS", "STANDBY_KEYS", "Authority", "found"]

STANDBY_KEYS = entries.DEPTH
OWN_KINDS = (Kind.CLIENT_CA, Kind.SERVER_TLS, Kind.MESSAGE_SIGNING)
"""The server's own subordinate keys; the client CA is renewed first."""
HEAD_INTERVAL = timedelta(hours=1)

Random = Callable[[int], bytes]


def found(
    keyring: Keyring,
    standby: Standby,
    *,
    fqdn: str,
    now: datetime,
    random: Random = secrets.token_bytes,
) -> Chain:
    """Make the first root, sixteen standby keys and GENESIS, without asking (A1).

    A crash at any point is made good by calling it again: what exists already is used, and
    nothing has been told to anybody.

    Raises:
        StateError: these keys are of a deployment, whose ledger is lost.
    """
    if keyring.credentials or len(keyring.root_ids) > 1:
        raise StateError(
            "the ledger is missing, and pki.db holds keys that belong to one",
            hint="restore it from a backup; no new deployment is founded with the keys of another",
        )
    if not standby.exists:
        made = [keys.generate() for _ in range(STANDBY_KEYS)]
        standby.save({keys.key_id(key.public_key()): key for key in made})
    if not keyring.root_ids:
        key = keys.generate()
        keyring.keep_roots({keys.key_id(key.public_key()): key})
    (root_id,) = keyring.root_ids
    root_key = _held(keyring, root_id)
    root = certificates.make_root(root_key, fqdn, 0, now, issuance.serial(random, now))
    return ledger.make_genesis(
        root,
        root_key,
        list(standby.load()),
        deployment=random(16),
        time=int(now.timestamp()),
        audit=bytes(32),
    )


class Authority:
    """Signs with the current root of this server's slot.

    Args:
        slot: our slot.
        policies: the policies in force, a kind.
        record: where issues are recorded before they take effect.
    """

    def __init__(
        self,
        keyring: Keyring,
        standby: Standby,
        trust: Trust,
        *,
        slot: bytes,
        fqdn: str,
        clock: Clock,
        log: Logger,
        record: IssuanceRecord,
        policies: Callable[[], Mapping[Kind, Policy]],
        random: Random = secrets.token_bytes,
    ) -> None:
        self._keyring = keyring
        self._standby = standby
        self._trust = trust
        self._slot = slot
        self._fqdn = fqdn
        self._clock = clock
        self._log = log
        self._issuing = Issuing(
            deployment=trust.deployment, record=record, clock=clock, log=log, random=random
        )
        self._policies = policies
        self._random = random

    @property
    def slot(self) -> bytes:
        """Id of the slot whose writer this is."""
        return self._slot

    @property
    def chain(self) -> Chain:
        """Our own ledger."""
        return self._trust.chain(self._slot)

    @property
    def can_sign(self) -> bool:
        """Whether the current root's private half is here."""
        return self._keyring.root(self.chain.current_root.key_id) is not None

    def issuer(self) -> Issuer:
        """The current root as an issuer.

        Raises:
            StateError: its private half is not here.
        """
        root = self.chain.current_root
        return Issuer(_held(self._keyring, root.key_id), (root.der,))

    def terms(self, kind: Kind) -> Terms:
        """What the current root signs a certificate of this kind with."""
        return Terms(self.issuer(), self._policies()[kind])

    def reconcile(self) -> None:
        """Complete or undo what a crash left, so that keys and ledger agree."""
        chain = self.chain
        standby = self._standby_or_none()
        wanted = [root.key_id for root in chain.roots[-2:] if root.key_id not in chain.revoked]
        roots = {id: key for id in wanted if (key := self._keyring.root(id)) is not None}
        current = chain.current_root.key_id
        if standby is not None and current in standby:
            roots[current] = standby[current]
        self._keyring.keep_roots(roots)
        if standby is not None and standby.keys() != set(chain.state.next):
            self._standby.save({id: standby[id] for id in chain.state.next if id in standby})
        if standby is not None:
            self._say_missing([id for id in chain.state.next if id not in standby])
        if not self.can_sign:
            self._log.error("root.key_missing", fingerprint=current.hex())

    def _say_missing(self, promised: Sequence[KeyId]) -> None:
        """A root that was promised and has no key ends the succession when its turn comes."""
        if promised:
            self._log.error(
                "standby.incomplete",
                fingerprint=promised[0].hex(),
                count=len(promised),
                remedy="restore standby.db from its newest backup, which has the keys made since",
            )

    def _standby_or_none(self) -> dict[KeyId, PrivateKey] | None:
        """The standby keys; without them the present root goes on working."""
        try:
            return self._standby.load()
        except StateError as exc:
            self._log.error("standby.unreadable", reason=str(exc), remedy=exc.hint)
            return None

    async def certify(self, kind: Kind, reason: str) -> None:
        """Renew one of the server's own keys.

        Raises:
            StateError: the root's key is not here, or its certificate has not begun.
        """
        terms = self.terms(kind)
        key = self._keyring.prepare(kind)
        csr = certificates.make_request(key, kind)
        try:
            chain = await self._issuing.issue(kind, self._keyring.id, csr, terms)
        except RefusedError as exc:
            raise StateError(
                f"no {kind} key can be signed: {exc}",
                hint="set the clock; if it was wrong when that root was made, make a new root",
            ) from exc
        leaf, root = certificates.read(chain[0]), certificates.read(chain[-1])
        self._keyring.activate(kind, chain, terms.policy.window)
        self._log.info(
            "key.activated",
            kind=kind.value,
            fingerprint=leaf.fingerprint,
            root=root.fingerprint,
            not_after=leaf.not_after,
            reason=reason,
        )

    async def new_root(self, audit: bytes) -> Facts:
        """Succeed the current root by the next standby key (B1); see the module's table."""
        now = self._clock.now()
        chain = self.chain
        current = chain.current_root
        current_key = _held(self._keyring, current.key_id)
        standby = self._standby.load()
        if chain.state.next[0] not in standby:
            raise StateError(
                "the next root's key is not in standby.db", hint="restore it from its backup"
            )
        new_key, further = standby[chain.state.next[0]], keys.generate()
        one_more = keys.key_id(further.public_key())
        root = certificates.make_root(
            new_key, self._fqdn, len(chain.roots), now, issuance.serial(self._random, now)
        )
        longer = ledger.make_rotate(
            chain,
            root,
            current_key,
            new_key,
            one_more,
            time=int(now.timestamp()),
            audit=audit,
        )
        self._standby.save({**standby, one_more: further})
        self._keyring.keep_roots({current.key_id: current_key, chain.state.next[0]: new_key})
        try:
            self._append(longer)
        except StateError:
            # It has not happened, and pki.db must not go on holding the key of a root to come.
            # Whether the ledger has the entry all the same is known at the next start, so
            # standby.db keeps every key until then.
            with contextlib.suppress(StateError):
                self._keyring.keep_roots({current.key_id: current_key})
            raise
        try:
            self.reconcile()
        except StateError:
            # It has happened: everybody must hear of it, though standby.db was not tidied yet.
            await self._take_up()
            raise
        await self._take_up()
        return certificates.read(root)

    async def _take_up(self) -> None:
        """Use the newest root for our own keys, and sign its HEAD."""
        for kind in OWN_KINDS:
            try:
                await self.certify(kind, "new root")
            except StateError as exc:
                # It has happened all the same: the renewal of this key comes to it again.
                self._log.warning("key.renewal_failed", kind=kind.value, reason=str(exc))
        self.sign_head()

    def revoke(self, key_ids: Sequence[KeyId], audit: bytes) -> None:
        """Revoke older roots and destroy their private halves (B3)."""
        chain = self.chain
        longer = ledger.make_revoke(
            chain,
            key_ids,
            _held(self._keyring, chain.current_root.key_id),
            time=int(self._clock.now().timestamp()),
            audit=audit,
        )
        self._append(longer)
        try:
            self.reconcile()
        except StateError:
            # It has happened: everybody must hear of it, though a key could not be destroyed yet.
            self.sign_head()
            raise
        self.sign_head()

    def sign_head(self, denied: Sequence[KeyId] | None = None) -> bytes:
        """Sign and adopt a HEAD for the last entry; `denied` is as before if not given."""
        chain = self.chain
        held = self._trust.head(self._slot)
        head = heads.make_head(
            _held(self._keyring, chain.current_root.key_id),
            slot=self._slot,
            n=chain.last.n,
            entry_id=chain.last.id,
            time=heads.next_time(
                int(self._clock.now().timestamp()), None if held is None else held.time
            ),
            denied=self._trust.denied if denied is None else denied,
        )
        self._trust.take_head(head, source="ourselves")
        # What could not be destroyed when its root was revoked is destroyed now (B3), and the key
        # of a root to come that a new root left here when it failed is taken away.
        kept = self._keyring.root_ids & {root.key_id for root in chain.trusted_roots}
        self._keyring.keep_roots({id: _held(self._keyring, id) for id in kept})
        return head

    def head_due(self) -> datetime:
        """When the next HEAD is to be signed: at once if none names our last entry."""
        held, last = self._trust.head(self._slot), self.chain.last
        if held is None or held.entry_id != last.id:
            return self._clock.now()
        # Not from a HEAD that was signed while the clock was ahead.
        signed = min(datetime.fromtimestamp(held.time, UTC), self._clock.now())
        return signed + HEAD_INTERVAL

    def _append(self, longer: Chain) -> None:
        """Make a chain that is ours and one entry more the one that we, and all, follow."""
        last = longer.entries[-1].encode()
        if not self._trust.entries(self._slot, longer.last.n, [last], source="ourselves"):
            raise StateError("our own entry does not extend our ledger")


def _held(keyring: Keyring, key_id: KeyId) -> PrivateKey:
    key = keyring.root(key_id)
    if key is None:
        raise StateError(
            f"the private half of root {key_id.hex()} is not in pki.db",
            hint="an old backup? restore the newest one; nothing is signed without it",
        )
    return key
