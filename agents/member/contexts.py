"""The TLS contexts of one component: made from what it trusts and holds now.

A context is frozen after its first connection, so a change of trust or of a credential makes
new ones and swaps the reference (*Effect* 2); links made before are re-made by their owners.

The issuers that we know first hand are anchors beside the roots: the client CA that is ours, and
the one that has signed us, which is our neighbours' as well. Their own signatures were checked
when we took them, and are not again at each handshake (`protocol.tls`).
"""

from collections.abc import Callable, Sequence

from OpenSSL import SSL

from agents.member.keyring import Credential
from agents.member.trust import Trust
from pki.keys import KeyId
from protocol import tls

__all__ = ["MAX_SHOWN", "Contexts"]

MAX_SHOWN = 4
"""TLS keys that are remembered: who asks for a certificate names the one that it saw."""


class Contexts:
    """Gives contexts, each made once a state of trust and credential.

    Args:
        trust: whose roots are live.
        credential: what is shown to peers at this moment, or None.
        client_ca: the client CA that we hold, or None.
    """

    def __init__(
        self,
        trust: Trust,
        credential: Callable[[], Credential | None],
        client_ca: Callable[[], Credential | None],
    ) -> None:
        self._trust = trust
        self._credential = credential
        self._client_ca = client_ca
        self._made_for: tuple[int, Credential | None, Credential | None] | None = None
        self._cache: dict[str, SSL.Context] = {}
        self._shown: dict[KeyId, None] = {}

    @property
    def shown_keys(self) -> Sequence[KeyId]:
        """The last few keys that we have proven as a TLS server, the newest first.

        Older links have ended.
        """
        return tuple(reversed(self._shown))

    def server(self) -> SSL.Context:
        """For the side that is the TLS server.

        Raises:
            LookupError: there is no credential yet.
        """
        held = self._credential()
        if held is None:
            raise LookupError("no certificate yet")
        return self._get("server", held, lambda: self._make_server(held))

    def _make_server(self, held: Credential) -> SSL.Context:
        self._shown.pop(held.leaf.key_id, None)
        self._shown[held.leaf.key_id] = None
        for oldest in list(self._shown)[:-MAX_SHOWN]:
            del self._shown[oldest]
        shown = tls.Credentials(held.chain, held.key)
        return tls.server_context(shown, self._trust.roots, self._issuers())

    def member(self) -> SSL.Context:
        """For a TLS client that shows its certificate."""
        held = self._credential()
        return self._get("member", held, lambda: self._make_member(held))

    def _make_member(self, held: Credential | None) -> SSL.Context:
        shown = None if held is None else tls.Credentials(held.chain, held.key)
        return tls.client_context(shown, self._trust.roots, self._issuers())

    def enrolment(self) -> SSL.Context:
        """For a TLS client that proves the server and shows nothing."""
        roots = self._trust.roots
        return self._get("enrolment", self._credential(), lambda: tls.client_context(None, roots))

    def discovery(self) -> SSL.Context:
        """For a TLS client that proves nobody and shows nothing."""
        return self._get("discovery", self._credential(), tls.discovery_context)

    def _get(
        self, name: str, held: Credential | None, make: Callable[[], SSL.Context]
    ) -> SSL.Context:
        ca, known = self._client_ca(), self._made_for
        # Compared by identity: a credential is a value that is replaced, and this is asked at
        # each connection.
        if known is None or known[0] != self._trust.revision or known[1:] != (held, ca):
            self._cache.clear()
            self._made_for = (self._trust.revision, held, ca)
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def _issuers(self) -> Sequence[tuple[bytes, ...]]:
        held, ca = self._credential(), self._client_ca()
        above = () if held is None else held.chain[1:]
        return [chain for chain in (above, () if ca is None else ca.chain) if len(chain) > 1]
