"""Questions about a ledger that an administrator asks: which entry made this root?"""

from pki.entries import Genesis, Rotate
from pki.keys import KeyId
from pki.ledger import Chain

__all__ = ["audits", "made_by", "place"]


def place(chain: Chain, root: KeyId) -> int:
    """The place of a root among the chain's roots, from 0.

    Raises:
        KeyError: it is none of them.
    """
    for at, one in enumerate(chain.roots):
        if one.key_id == root:
            return at
    raise KeyError(root.hex())


def made_by(chain: Chain, root: KeyId) -> int:
    """The number of the entry that made a root."""
    seen = -1
    wanted = place(chain, root)
    for n, entry in enumerate(chain.entries):
        seen += isinstance(entry.parse().payload, Genesis | Rotate)
        if seen == wanted:
            return n
    raise AssertionError("every root of a chain was made by one of its entries")


def audits(chain: Chain) -> frozenset[bytes]:
    """The hashes of the activity records that the chain's entries name."""
    return frozenset(entry.parse().audit for entry in chain.entries)
