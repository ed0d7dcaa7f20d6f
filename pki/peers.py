"""Who is at the other end: the checks between a TLS handshake and the first byte of a link.

OpenSSL has verified signatures, path and usage against the live roots, and no dates. The chain
that it built is then checked here, in this order:

1. chain       there is one, and its certificates can be read.
2. dates       every certificate in it is valid at `now`; else expired, or not yet valid, with
               both clocks.
3. revoked     no KeyID in it is denied, and it ends at a root that is trusted.
4. role, id    the leaf names this deployment, a role and an id that this link expects.
5. usage       each certificate is of its kind, to the letter, and stands below the kind that
               issues it: so a client CA makes clients, and nothing else.
6. client CA   a client's chain passes the client CA of the responder that this link names.

Each has an error of its own, so that a refusal can say what was wrong and what to do.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pki import certificates
from pki.certificates import Facts
from pki.errors import (
    ExpiredError,
    NotYetValidError,
    RevokedError,
    RoleError,
    UnknownKeyError,
    UntrustedError,
)
from pki.keys import KeyId
from pki.names import Name, Role
from pki.profiles import KIND_OF_ROLE, LINES

__all__ = ["Expectation", "Peer", "check_peer"]

_BELOW_ROOT: Final = {role: list(LINES[kind][:-1]) for role, kind in KIND_OF_ROLE.items()}
"""The kinds of a chain, from a leaf of this role up to the one that a root has signed."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Who may be at the other end of a link."""

    roles: frozenset[Role]
    deployment: bytes
    id: bytes | None = None
    """The one component that was dialled; `None` where any of these roles may come."""
    client_ca_of: bytes | None = None
    """Id of the responder whose clients are meant; `None` only where no client is expected."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A component that has passed every check."""

    name: Name
    leaf: Facts
    root: KeyId
    ca: KeyId | None
    """The client CA above the leaf, where there is one."""
    not_after: datetime
    """When the first certificate of the chain ends."""

    @property
    def role(self) -> Role:
        """The role that the name states."""
        return self.name.role


def check_peer(
    chain: Sequence[bytes],
    expectation: Expectation,
    *,
    roots: Collection[KeyId],
    denied: Collection[KeyId],
    now: datetime,
) -> Peer:
    """Check the chain that a peer has proven to hold the leaf of.

    Args:
        chain: Certificates as OpenSSL verified them, DER, leaf first, root last.
        expectation: Who may be there.
        roots: Roots that are trusted.
        denied: Keys that must not be in the chain; revoked roots may be among them.
        now: Policy time.

    Raises:
        MalformedError: A certificate that cannot be read.
        ExpiredError, NotYetValidError: One of them is not valid now.
        RevokedError: A key in it is denied.
        UnknownKeyError: It ends at no trusted root.
        RoleError: The leaf names another role, id or deployment, or a client of another
            responder.
        UntrustedError: No chain, or one of another shape than this role's.
    """
    if not chain:
        raise UntrustedError("no certificate was shown")
    facts = [certificates.read(der) for der in chain]
    not_after = _check_dates(facts, now)
    _check_keys(facts, roots, denied)
    name = _check_name(facts[0], expectation)
    _check_kinds(facts, name)
    ca = _check_client_ca(facts, name, expectation)
    return Peer(name, facts[0], facts[-1].key_id, ca, not_after)


def _check_dates(facts: Sequence[Facts], now: datetime) -> datetime:
    """Return when the first of them ends."""
    first = facts[0].not_after
    for fact in facts:
        if now < fact.not_before:
            raise NotYetValidError(fact.key_id, fact.not_before, now)
        if now > fact.not_after:
            raise ExpiredError(fact.key_id, fact.not_after, now)
        if fact.not_after < first:
            first = fact.not_after
    return first


def _check_keys(
    facts: Sequence[Facts], roots: Collection[KeyId], denied: Collection[KeyId]
) -> None:
    for fact in facts:
        if fact.key_id in denied:
            raise RevokedError(fact.key_id)
    if facts[-1].key_id not in roots:
        raise UnknownKeyError(facts[-1].key_id, "root")


def _check_name(leaf: Facts, expectation: Expectation) -> Name:
    name = leaf.name
    if name is None:
        raise RoleError(_roles(expectation), f"a certificate without a name, {leaf.subject[:64]!r}")
    if name.deployment != expectation.deployment:
        raise RoleError(
            f"deployment {expectation.deployment.hex()}", f"deployment {name.deployment.hex()}"
        )
    if name.role not in expectation.roles:
        raise RoleError(_roles(expectation), str(name.role))
    if expectation.id is not None and name.id != expectation.id:
        raise RoleError(f"id {expectation.id.hex()}", f"id {name.id.hex()}")
    return name


def _roles(expectation: Expectation) -> list[str]:
    return [str(role) for role in expectation.roles]


def _check_kinds(facts: Sequence[Facts], name: Name) -> None:
    *below, root = facts
    expected = _BELOW_ROOT[name.role]
    got = [fact.kind for fact in below]
    # The root's own profile decides nothing: its place in the ledger has made it a root.
    if got != expected or not root.is_ca:
        kinds = ", ".join(str(kind) if kind else "no known kind" for kind in got[:4])
        raise UntrustedError(f"chain of {kinds} below a root, expected {', '.join(expected)}")
    for fact in below:
        if fact.name is None or fact.name.deployment != name.deployment:
            raise UntrustedError("certificate of another deployment in the chain")


def _check_client_ca(facts: Sequence[Facts], name: Name, expectation: Expectation) -> KeyId | None:
    if name.role is not Role.CLIENT:
        return None
    issuer = facts[1]
    responder = issuer.name.id if issuer.name else b""
    if responder != expectation.client_ca_of:
        expected = expectation.client_ca_of
        raise RoleError(
            f"a client of {expected.hex() if expected else 'nobody'}", f"one of {responder.hex()}"
        )
    return issuer.key_id
