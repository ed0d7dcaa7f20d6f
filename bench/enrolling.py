"""Load of issuance-service: clients that renew over standing member links, again and again.

    python -m bench.enrolling FOLDER PORT LINKS REQUESTS

Says "ready" when the links are open, waits for a line, and sends REQUESTS in all, one in flight
a link. The last line is "done", as that of `c/load.c`.
"""

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.dialer import dial
from bench.deployment import Deployment
from bench.members import Applicant, Contexts, Site, enrol, enrollers
from pki import certificates, keys
from pki.certificates import Kind
from pki.keys import PrivateKey
from protocol.access import LinkClass
from protocol.messages import Issued

__all__ = ["main"]


async def _renew(channel: Channel, site: Site, identity: PrivateKey, csr: bytes, times: int) -> int:
    failed = 0
    for _ in range(times):
        answer = await enrol(channel, site, identity, csr)
        if not isinstance(answer, Issued):
            print(answer, file=sys.stderr)
            failed += 1
    return failed


async def _open(site: Site, applicant: Applicant, port: int) -> Channel:
    return await dial(
        "127.0.0.1",
        port,
        endpoint=site.endpoint(Contexts(applicant.shown, site.root)),
        link_class=LinkClass.MEMBER,
        verify=site.verify,
    )


async def _main(folder: Path, port: int, links: int, requests: int) -> None:
    site = Site(Deployment(folder))
    who = enrollers(Deployment(folder))[:links]
    csrs = [certificates.make_request(keys.generate(), Kind.CLIENT_TLS) for _ in who]
    channels = [await _open(site, one, port) for one in who]
    print("ready")
    await asyncio.to_thread(sys.stdin.readline)
    before = time.perf_counter()
    failed = await asyncio.gather(
        *(
            _renew(channel, site, one.identity, csr, requests // len(who))
            for channel, one, csr in zip(channels, who, csrs, strict=True)
        )
    )
    took = time.perf_counter() - before
    done = requests // len(who) * len(who)
    print("done", len(who), done, sum(failed), int(took * 1e6))


def main() -> int:
    """Run the load."""
    folder, port, links, requests = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    logs.silence()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(folder, port, links, requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
