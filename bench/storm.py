"""Load of the storm: clients that all enrol at once, and come back when they are told to.

    python -m bench.storm FOLDER PORT CLIENTS

Says "ready", waits for a line, and starts every client. Each makes an enrolment link from an
address of its own, asks for its first certificate, and leaves; one that is refused or finds no
room waits as long as it is told, or backs off, as the product's own clients do. The last line is
"done", as that of `c/load.c`; what failed is what was neither enrolled nor told to come back.
"""

import asyncio
import ipaddress
import sys
import time
from pathlib import Path

import uvloop

from agents.runtime import logs
from agents.runtime.backoff import Backoff
from agents.runtime.dialer import dial
from agents.runtime.errors import UnavailableError
from bench.deployment import Deployment
from bench.members import Contexts, Site, enrol
from pki import certificates, keys
from pki.certificates import Kind
from pki.keys import PrivateKey
from protocol.access import LinkClass
from protocol.messages import Issued, Refused

__all__ = ["main"]

ADDRESSES = int(ipaddress.ip_address("127.1.0.1"))
GIVE_UP = 300.0
"""Seconds after which the storm has failed."""


class Storm:
    """All clients, and how they fare."""

    def __init__(self, deployment: Deployment, port: int) -> None:
        self._site = Site(deployment)
        self._port = port
        self._endpoint = self._site.endpoint(Contexts(None, self._site.root))
        self.visits = 0
        self.failed = 0

    async def client(self, number: int, identity: PrivateKey, csr: bytes) -> None:
        """One client, until it has its certificate."""
        backoff = Backoff()
        while True:
            self.visits += 1
            try:
                if await self._visit(number, identity, csr):
                    return
                wait = backoff.next(None)
            except UnavailableError as exc:
                wait = backoff.next(exc.retry_after)
            await asyncio.sleep(wait)

    async def _visit(self, number: int, identity: PrivateKey, csr: bytes) -> bool:
        channel = await dial(
            "127.0.0.1",
            self._port,
            endpoint=self._endpoint,
            link_class=LinkClass.ENROLMENT,
            verify=self._site.verify,
            local_address=str(ipaddress.ip_address(ADDRESSES + number)),
        )
        try:
            answer = await enrol(channel, self._site, identity, csr)
        finally:
            channel.close()
        if isinstance(answer, Issued):
            return True
        if isinstance(answer, Refused) and answer.retry_after is not None:
            raise UnavailableError(answer.text, answer.retry_after)
        print(answer, file=sys.stderr)
        self.failed += 1
        return False


async def _main(folder: Path, port: int, clients: int) -> None:
    storm = Storm(Deployment(folder), port)
    who = [
        (keys.generate(), certificates.make_request(keys.generate(), Kind.CLIENT_TLS))
        for _ in range(clients)
    ]
    print("ready")
    await asyncio.to_thread(sys.stdin.readline)
    before = time.perf_counter()
    async with asyncio.timeout(GIVE_UP):
        await asyncio.gather(*(storm.client(i, *one) for i, one in enumerate(who)))
    took = time.perf_counter() - before
    print("done", storm.visits, clients, storm.failed, int(took * 1e6))


def main() -> int:
    """Run the storm."""
    folder, port, clients = Path(sys.argv[1]), *map(int, sys.argv[2:4])
    logs.silence()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(folder, port, clients))
    return 0


if __name__ == "__main__":
    sys.exit(main())
