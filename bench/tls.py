"""What the parts of TLS cost, in one process and without sockets.

    python -m bench.tls issuers N      microseconds of a TLS server's handshake: every chain
                                       verified to its root, and its issuer known (ADR 0009)
    python -m bench.tls calls N        microseconds to decrypt a request of 200 bytes and to
                                       encrypt its answer: pyOpenSSL's way, and direct (ADR 0011)
    python -m bench.tls chains N       microseconds of the chain that a handshake has verified:
                                       the same two

No row of the table: two ways of our own, side by side, for who changes one of them. N is rounded
down to a multiple of 50, and is 50 at least. They print `public 7.5 us, direct 2.8 us`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from OpenSSL import SSL

from agents.runtime.clock import SystemClock
from bench.work import DEPLOYMENT, client_ca
from pki import certificates, issuance, keys
from pki.certificates import Kind
from pki.issuance import Issuer
from protocol.calls import Calls, Direct, Public
from protocol.tls import TLS, Credentials, client_context, server_context

__all__ = ["main"]

BATCH = 50
"""Of one way, and then of the other."""
SMALL = 200


def _member(ca: Issuer) -> Credentials:
    key = keys.generate()
    der = issuance.issue(
        ca,
        certificates.parse_request(certificates.make_request(key, Kind.CLIENT_TLS)),
        kind=Kind.CLIENT_TLS,
        name=certificates.name_of(DEPLOYMENT, Kind.CLIENT_TLS, bytes(16)),
        validity=issuance.MIN_LIFE * 48,
        now=SystemClock().now(),
        serial=3,
    )
    return Credentials((der, *ca.chain), key)


def _shake(client_side: SSL.Context, server_side: SSL.Context) -> tuple[float, TLS, TLS]:
    """Processor seconds of the server, client and server."""
    client = TLS(client_side, server_side=False)
    before = time.process_time()
    server = TLS(server_side, server_side=True)
    took = time.process_time() - before
    while not (client.handshake_done and server.handshake_done):
        flight = client.data_to_send()
        before = time.process_time()
        server.receive(flight)
        answer = server.data_to_send()
        took += time.process_time() - before
        client.receive(answer)
        if server.failure or client.failure:
            raise SystemExit(f"no handshake: {server.failure or client.failure}")
    return took, client, server


def issuers(count: int) -> None:
    """Print what a handshake costs with roots only, and with its issuer known."""
    ca = client_ca()
    member, root = _member(ca), ca.chain[-1]
    client = client_context(member, [root])
    took = [0.0, 0.0]
    ways = [server_context(member, [root]), server_context(member, [root], [ca.chain])]
    for _ in range(0, count, BATCH):
        for place, way in enumerate(ways):
            took[place] += sum(_shake(client, way)[0] for _ in range(BATCH))
    print(f"roots only {1e6 * took[0] / count:.0f} us, issuer known {1e6 * took[1] / count:.0f} us")


def calls(count: int) -> None:
    """Print what a request and its answer cost both ways."""
    ca = client_ca()
    member = _member(ca)
    _, client, server = _shake(
        client_context(member, [ca.chain[-1]]), server_context(member, [ca.chain[-1]])
    )
    connection, data = server._connection, bytes(SMALL)
    took = [0.0, 0.0]
    ways: list[Calls] = [Public(), Direct()]
    for _ in range(0, count, BATCH):
        for place, way in enumerate(ways):
            records = []
            for _ in range(BATCH):
                client.write(data)
                records.append(client.data_to_send())
            before = time.process_time()
            for record in records:
                way.decrypt(connection, record, SMALL)
                way.encrypt(connection, data)
            took[place] += time.process_time() - before
    print(f"public {1e6 * took[0] / count:.1f} us, direct {1e6 * took[1] / count:.1f} us")


def chains(count: int) -> None:
    """Print what the verified chain costs both ways."""
    ca = client_ca()
    member, root = _member(ca), ca.chain[-1]
    context = server_context(member, [root], [ca.chain])
    _, _, server = _shake(client_context(member, [root]), context)
    took = [0.0, 0.0]
    ways: list[Calls] = [Public(), Direct()]
    for _ in range(0, count, BATCH):
        for place, way in enumerate(ways):
            before = time.process_time()
            for _ in range(BATCH):
                way.verified(server._connection, server._anchors)
            took[place] += time.process_time() - before
    print(f"public {1e6 * took[0] / count:.1f} us, direct {1e6 * took[1] / count:.1f} us")


WAYS: Mapping[str, Callable[[int], None]] = {
    "issuers": issuers,
    "calls": calls,
    "chains": chains,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one of them."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=WAYS)
    parser.add_argument("count", type=int, metavar="N", help="how often")
    args = parser.parse_args(argv)
    WAYS[args.what](args.count // BATCH * BATCH or BATCH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
