"""Everything that is drawn in a simulated world, drawn from its seed.

`secrets` draws all its numbers from one generator of the operating system, and ids of links and
traces are asked of that itself. In a simulated world both are seeded, so whatever the product
draws (it knows no other source) is drawn again in a replay. Private keys come from OpenSSL in the
product, and from the seed here.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random  # noqa: TID251 - the seed of a run decides everything in it
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import ec

from pki import keys

__all__ = ["Random", "drawn", "seeded"]

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of P-256's group: a private key is a number from 1 to this, exclusive."""


def drawn(seed: int, purpose: str) -> Random:
    """A generator of its own for each purpose, so that one more draw here moves nothing there."""
    return Random(f"{seed}/{purpose}")  # noqa: S311 - not for secrets


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have the product draw its numbers and its keys from the seed, inside the block."""
    numbers, scalars, ids = (drawn(seed, purpose) for purpose in ("numbers", "keys", "ids"))

    def generate() -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(scalars.randrange(1, ORDER), ec.SECP256R1())

    with (
        patch.object(secrets, "_sysrand", numbers),
        patch.object(os, "urandom", ids.randbytes),
        patch.object(keys, "generate", generate),
    ):
        yield
