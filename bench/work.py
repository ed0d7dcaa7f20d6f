"""What is measured inside one process: `python -m bench.work issuance N` and `catch-up N`.

A process of its own for each round: caches begin empty, as they do in the program that runs.
"""

import sys
import time
from collections.abc import Callable
from datetime import timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agents.runtime.clock import SystemClock
from pki import certificates, issuance, keys, ledger, trust
from pki.certificates import Kind
from pki.entries import DEPTH
from pki.issuance import Issuer

__all__ = ["DEPLOYMENT", "client_ca", "main"]

DEPLOYMENT = bytes(16)
BATCH = 50
"""Certificates, and then bare operations, measured in turn."""


def issuance_row(count: int) -> None:
    """Says "done" with CPU seconds of `count` issues, and of as many bare verifies and signs."""
    issuer, now = client_ca(), SystemClock().now()
    names = [
        certificates.name_of(DEPLOYMENT, Kind.CLIENT_TLS, i.to_bytes(16)) for i in range(count)
    ]
    requests = [certificates.make_request(keys.generate(), Kind.CLIENT_TLS) for _ in range(BATCH)]

    def issue(number: int) -> tuple[bytes, ...]:
        der = issuance.issue(
            issuer,
            certificates.parse_request(requests[number % BATCH]),
            kind=Kind.CLIENT_TLS,
            name=names[number],
            validity=timedelta(days=7),
            now=now,
            serial=number + 2 | 1 << 120,
        )
        return (der, *issuer.chain)

    algorithm, message = ec.ECDSA(hashes.SHA256()), bytes(200)
    public, signature = issuer.key.public_key(), issuer.key.sign(message, algorithm)

    def bare(_number: int) -> bytes:
        public.verify(signature, message, algorithm)
        return issuer.key.sign(message, algorithm)

    ours = theirs = 0.0
    issue(0)
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        ours += _cpu(issue, numbers)
        theirs += _cpu(bare, numbers)
    print("done", ours, theirs)


def catch_up_row(count: int) -> None:
    """Says "done" with CPU seconds of following `count` rotations and as many revocations."""
    now = SystemClock().now()
    time_ = int(now.timestamp())
    made = [keys.generate() for _ in range(count + 1 + DEPTH)]
    ids = [keys.key_id(key.public_key()) for key in made]

    def root(place: int) -> bytes:
        return certificates.make_root(made[place], "bench.test", place, now, place + 1)

    genesis = ledger.make_genesis(
        root(0), made[0], ids[1 : 1 + DEPTH], DEPLOYMENT, time_, bytes(32)
    )
    chain = genesis
    for place in range(1, count + 1):
        further = ids[place + DEPTH]
        chain = ledger.make_rotate(
            chain, root(place), made[place - 1], made[place], further, time_, bytes(32)
        )
        chain = ledger.make_revoke(chain, [ids[place - 1]], made[place], time_, bytes(32))
    # What making it has left in caches is gone: the one who follows has not made it.
    certificates.read.cache_clear()
    keys.load_spki.cache_clear()
    state, entries = trust.from_chain(genesis), list(chain.encoded[1:])
    before = time.process_time()
    outcome = trust.accept_entries(state, genesis.slot, 1, entries)
    took = time.process_time() - before
    if len(outcome.state.first.chain.entries) != 2 * count + 1:
        raise SystemExit(f"it did not follow: {outcome.problem}")
    print("done", took)


def client_ca() -> Issuer:
    """A client CA below a root of its own, as whoever signs with it holds it."""
    now, root_key, key = SystemClock().now(), keys.generate(), keys.generate()
    root = Issuer(root_key, (certificates.make_root(root_key, "bench.test", 0, now, 1),))
    der = issuance.issue(
        root,
        certificates.parse_request(certificates.make_request(key, Kind.CLIENT_CA)),
        kind=Kind.CLIENT_CA,
        name=certificates.name_of(DEPLOYMENT, Kind.CLIENT_CA, bytes(16)),
        validity=timedelta(days=180),
        now=now,
        serial=2,
    )
    return Issuer(key, (der, *root.chain))


def _cpu(work: Callable[[int], object], numbers: range) -> float:
    before = time.process_time()
    for number in numbers:
        work(number)
    return time.process_time() - before


def main() -> int:
    """Measure one round."""
    rows: dict[str, Callable[[int], None]] = {"issuance": issuance_row, "catch-up": catch_up_row}
    rows[sys.argv[1]](int(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
