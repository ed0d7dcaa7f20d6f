r"""A component's own word that it follows a ledger up to an entry.

    [spki, sig]    sig over "anchorline-ack-v1\0" || slot || n (8 bytes, big-endian) || entry id

The identity key signs it, and its hash is the component's id: so an acknowledgement can be
relayed by anyone, and counted by whoever wants to know who has followed. What a server has sent
says nothing about that.
"""

from typing import Final

from pki import keys
from pki.entries import ID_BYTES
from pki.errors import MalformedError
from pki.keys import PrivateKey

__all__ = ["make_ack", "verify_ack"]

DOMAIN: Final = b"anchorline-ack-v1\0"


def _message(slot: bytes, n: int, entry_id: bytes) -> bytes:
    if len(slot) != ID_BYTES or len(entry_id) != ID_BYTES or not 0 <= n < 2**64:
        raise MalformedError(f"acknowledgement of entry {n} with ids of another length")
    return slot + n.to_bytes(8, "big") + entry_id


def make_ack(identity: PrivateKey, slot: bytes, n: int, entry_id: bytes) -> tuple[bytes, bytes]:
    """Acknowledge an entry; gives SubjectPublicKeyInfo and signature."""
    message = _message(slot, n, entry_id)
    return keys.spki(identity.public_key()), keys.sign(identity, DOMAIN, message)


def verify_ack(spki: bytes, signature: bytes, slot: bytes, n: int, entry_id: bytes) -> bytes:
    """Verify an acknowledgement; gives the id of the component whose word it is, 16 bytes.

    Raises:
        MalformedError: A field of another size.
        SignatureError: Not signed by that key.
    """
    keys.verify(spki, signature, DOMAIN, _message(slot, n, entry_id))
    return keys.component_id(spki)
