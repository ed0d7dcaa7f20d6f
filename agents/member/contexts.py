"""The TLS contexts of one component: made from what it trusts and holds now.

A context is frozen after its first connection, so a change of trust or of a credential makes
new ones and swaps the reference (rule 17); links made before are re-made by their owners.
"""

from collections.abc import Callable

from OpenSSL import SSL

from agents.member.keyring import Credential
from agents.member.trust import Trust
from protocol import tls

__all__ = ["Contexts"]


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

    def server(self) -> SSL.Context:
        """For the side that is the TLS server.

        Raises:
            LookupError: there is no credential yet.
        """
        credential = self._shown()
        if credential is None:
            raise LookupError("no certificate yet")
        return self._get("server", lambda: tls.server_context(credential, self._trust.roots))

    def member(self) -> SSL.Context:
        """For a TLS client that shows its certificate."""
        return self._get("member", lambda: tls.client_context(self._shown(), self._trust.roots))

    def enrolment(self) -> SSL.Context:
        """For a TLS client that proves the server and shows nothing."""
        return self._get("enrolment", lambda: tls.client_context(None, self._trust.roots))

    def discovery(self) -> SSL.Context:
        """For a TLS client that proves nobody and shows nothing."""
        return self._get("discovery", tls.discovery_context)

    def _shown(self) -> tls.Credentials | None:
        held = self._credential()
        return None if held is None else tls.Credentials(held.chain, held.key)

    def _get(self, name: str, make: Callable[[], SSL.Context]) -> SSL.Context:
        held = self._credential()
        state = (self._trust.revision, None if held is None else held.chain[0])
        if state != self._made_for:
            self._cache.clear()
            self._made_for = state
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]
