"""The TLS contexts of one component: made from what it trusts and holds now.

A context is frozen after its first connection, so a change of trust or of a credential makes
new ones and swaps the reference (rule 17); links made before are re-made by their owners.
"""

from collections.abc import Callable

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
    """

    def __init__(self, trust: Trust, credential: Callable[[], Credential | None]) -> None:
        self._trust = trust
        self._credential = credential
        self._made_for: tuple[int, bytes | None] | None = None
        self._cache: dict[str, SSL.Context] = {}
        self._shown: dict[KeyId, None] = {}

    @property
    def shown_keys(self) -> frozenset[KeyId]:
        """The last few keys that we have proven as a TLS server; older links have ended."""
        return frozenset(self._shown)

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
        return tls.server_context(tls.Credentials(held.chain, held.key), self._trust.roots)

    def member(self) -> SSL.Context:
        """For a TLS client that shows its certificate."""
        held = self._credential()
        shown = None if held is None else tls.Credentials(held.chain, held.key)
        return self._get("member", held, lambda: tls.client_context(shown, self._trust.roots))

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
        state = (self._trust.revision, None if held is None else held.chain[0])
        if state != self._made_for:
            self._cache.clear()
            self._made_for = state
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]
