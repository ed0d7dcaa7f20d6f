"""What an operator can do about a link that was refused, or ended for what its peer did (E5)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["REMEDIES"]

REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "lost": "look into the other side's log: it went away without a word",
        "protocol_error": "something that does not speak this protocol: see what runs there",
        "frame_too_large": "compare the versions of both sides",
        "unknown_frame": "compare the versions of both sides",
        "not_allowed": "compare the versions of both sides; if equal, treat the peer as hostile",
        "wrong_version": "upgrade the older side",
        "handshake_timeout": "look for a firewall or an overloaded host between both sides",
        "idle_timeout": "nothing: the peer connects again",
        "untrusted": "compare `pki show` of both sides: a member follows the ledger by itself; "
        "anything else is not of this deployment",
        "expired": "nothing if it comes back renewed; otherwise compare the clocks of both hosts",
        "clock": "set the clocks of both hosts",
        "revoked": "nothing if it comes back re-keyed; otherwise somebody uses a revoked key",
        "wrong_role": "check which component listens at that address",
        "trust_changed": "nothing: it connects again with what is trusted now",
        "retry_after": "nothing if it is rare; otherwise raise the bound, or add a responder",
        "internal": "read the error in the log of the side that failed",
        "dropped": "nothing if it is rare; otherwise find out who connects so often",
        "exhausted": "raise LimitNOFILE of the service, or lower `[admission] connections`",
        "unready": "wait for this component's own certificate; `pki show` says what is missing",
    }
)
"""For each reason of a refusal, what an operator can do."""
