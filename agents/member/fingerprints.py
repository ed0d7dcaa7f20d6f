"""When two texts name the same deployment: one rule, for daemons and the command line alike.

Fingerprints are lower-case hex wherever this program writes one (docs/spec/bundle.md,
*Fingerprint*). Whoever typed or pasted one may have used capitals, or left space around it.
"""

__all__ = ["same_deployment"]


def same_deployment(expected: str, found: str) -> bool:
    """Whether the fingerprint that somebody expects is the one that was found."""
    return expected.strip().lower() == found
