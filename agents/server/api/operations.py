"""What the API asks of a server, as a port.

Everything that an administrator can do is one method. Methods that change something name the
actor; each raises `agents.server.errors.OperationError` when it is refused, and returns what
JSON can carry. Dates are ISO 8601 in UTC, to the second, as "2026-01-31T12:00:00+00:00"; KeyIDs
and ids are lower-case hex.

    status     {role, id, deployment, fingerprint, time, server: {fqdn, listen}, roots: [root],
                root_age: {days, warning}, keys: [{kind, fingerprint, root, serial, not_before,
                not_after, window (s), next_renewal}], ledger: {slot, n, entry_id, head_time},
                links: [{link, class, peer_role, peer, remote, ...}], components: [{role, id, host,
                fingerprint, state, connected, last_seen}], clients: {total, present, behind},
                behind: ["role host"], signatures: {root, client_ca, ...}, can_sign}
    root       {name, fingerprint, created, current, revoked, revocable, revocable_in_doubt, why,
                private_key_held}
    coverage   {root, counts: {role: {moved, moving, offline}}, rows: [row], behind: [row]}
    row        {role, id, host, state: "moved" | "moving" | "offline", why, last_seen}
    rotation   a coverage with settings: [{kind, validity (s), window (s), raised: [text]}]
    approval   {fingerprint, role, host, address, state, first_seen, last_seen, decided_by,
                decided_at, reason}
    client     {id, host, address, seen, port, version, last_registration, key_not_after, root,
                valid_key, responder, responder_role, chain, index, leader, forward, backward,
                status}; key_not_after, root and valid_key are about the key that it has proven at
                its last registration
    setting    {name, value, default, type, value_type, changed_by, changed_at, effective, note}
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Operations", "Row"]

Row = dict[str, Any]


class Operations(Protocol):
    """A server, as an administrator sees it."""

    async def status(self) -> Row:
        """Return everything on one screen: a status."""
        ...

    async def roots(self) -> list[Row]:
        """Return every root that there ever was, oldest first."""
        ...

    async def root_new(self, actor: str, *, confirmed: bool) -> Row:
        """Create a further root; returns it and the coverage."""
        ...

    async def coverage(self, root_name: str | None) -> Row:
        """Return who has followed to a root; the newest if none is named."""
        ...

    async def root_revoke(
        self,
        actor: str,
        name: str,
        *,
        key_in_doubt: bool,
        reason: str,
        confirmed: bool,
        shown: Sequence[bytes] | None = None,
    ) -> Row:
        """Revoke a root; returns the names that were revoked and the coverage."""
        ...

    async def root_log(self) -> list[Row]:
        """Return who made and revoked which root, and when; newest first."""
        ...

    async def rotation(self, *, behind: bool) -> Row:
        """Return the coverage of the newest root, and the policies in force."""
        ...

    async def approvals(self) -> list[Row]:
        """Return every hub and zone server that asked."""
        ...

    async def approvals_decide(self, actor: str, fingerprint: str, verb: str, reason: str) -> Row:
        """Approve, deny or revoke one; returns it.

        Args:
            actor: Who decides.
            fingerprint: 64 hex digits, or the first 16 and more where that is unique.
            verb: "approve", "deny" or "revoke".
            reason: Why, for people; may be empty.
        """
        ...

    async def approvals_log(self) -> list[Row]:
        """Return every request and decision, newest first."""
        ...

    async def clients(self) -> list[Row]:
        """Return every client of the server and of its zone servers."""
        ...

    async def bundle(self, actor: str, settings: Mapping[str, str]) -> tuple[bytes, str, int]:
        """Return an init bundle, its deployment fingerprint, and how many were handed out."""
        ...

    async def settings(self) -> list[Row]:
        """Return every setting."""
        ...

    async def setting_set(self, actor: str, name: str, value: str) -> Row:
        """Change a setting; returns it and what the rules raise because of it."""
        ...
