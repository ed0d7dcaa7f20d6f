"""Every acknowledgement comes after its fsync: seen from outside, by the kernel's own account.

`strace` writes down, in one order, when a server hears a request, when a file of its state is
on the disk, and when its answer leaves. Nothing of ours could make that up.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agents.member.requesting import standing_of
from protocol.access import LinkClass
from protocol.messages import Done, Register, Registered
from tests.crash.strace import HEARD, SAID, SYNCED, traced
from tests.overload.crowd import KIND, Crowd
from tests.overload.test_storm import crowd_of
from tests.support.daemons import Site
from tests.support.links import on_uvloop

pytestmark = [pytest.mark.sockets, pytest.mark.needs("strace")]


def check_order(calls: list[tuple[str, str]], peer: str, file: str) -> None:
    """Between the last thing heard of a peer and the next thing said to it, a file was synced."""
    said = [n for n, (call, what) in enumerate(calls) if call in SAID and peer in what]
    heard = [n for n, (call, what) in enumerate(calls) if call in HEARD and peer in what]
    assert said, (peer, calls[-40:])
    assert heard, (peer, calls[-40:])
    answer = said[0] if len(said) == 1 else next(n for n in said if n > heard[0])
    asked = max(n for n in heard if n < answer)
    between = [what for call, what in calls[asked:answer] if call in SYNCED]
    assert any(file in what for what in between), (file, between)


@on_uvloop
class TestAnswersOfALink:
    @pytest.mark.req("C8")
    @pytest.mark.parametrize("what", ["enrol", "register", "acknowledge"])
    async def test_an_answer_leaves_after_its_fsync(
        self, site: Site, tmp_path: Path, what: str
    ) -> None:
        await asyncio.to_thread(site.start_server)
        crowd: Crowd = crowd_of(site, site.bundle.read_bytes())
        member = crowd.member()
        await crowd._enrol(member, 1)
        channel = await crowd.dial(member, 1, LinkClass.MEMBER)
        host, port = channel.local

        async def enrol() -> None:
            await member.enrol(channel, KIND, standing_of(channel), reason="test")

        async def register() -> None:
            answer = await channel.request(Register(host="a", version="1", port=1, full=True))
            assert isinstance(answer, Registered)

        async def acknowledge() -> None:
            (slot,) = member.trust.slots
            assert isinstance(await channel.request(member.acknowledgement._ack(slot)), Done)

        ask: Callable[[], Awaitable[None]] = {
            "enrol": enrol,
            "register": register,
            "acknowledge": acknowledge,
        }[what]
        with traced(site.server, tmp_path / "calls") as trace:
            await ask()
            calls = await asyncio.to_thread(trace.end)
        channel.close()
        await channel.gone()
        if what == "enrol":  # the nonce before it needs no disk: look at the second answer
            first = next(n for n, (call, w) in enumerate(calls) if call in SAID and str(port) in w)
            calls = calls[first + 1 :]
        assert host
        check_order(calls, f":{port}", "server.db")


@pytest.mark.req("C8", "B10")
@pytest.mark.parametrize("what", ["rotate", "revoke", "approve"])
def test_an_administrator_is_answered_after_the_fsync(
    site: Site, tmp_path: Path, what: str
) -> None:
    server = site.start_server()
    site.api.post("roots", confirmed=True)
    zone = site.add_zone("zone", 2).launch()
    hub = site.add_hub("hub", f"{site.address(2)}:{site.port + 1}").launch()
    server.wait("approval.pending", peer_role="hub")
    fingerprint = site.api.get("approvals")[0]["fingerprint"]
    hub.kill()
    zone.kill()
    threading.Event().wait(0.1)
    with traced(server, tmp_path / "calls") as trace:
        match what:
            case "rotate":
                site.api.post("roots", confirmed=True)
            case "revoke":
                name = site.api.get("roots")[0]["name"]
                site.api.post(
                    "roots", name, "revoke", key_in_doubt=True, reason="x", confirmed=True
                )
            case _:
                site.api.post("approvals", fingerprint, "approve", reason="x")
        calls = trace.end()
    answers = [n for n, (call, w) in enumerate(calls) if call in SAID and "server.sock" in w]
    assert answers
    files = [w for call, w in calls[: answers[-1]] if call in SYNCED]
    wanted = {
        "rotate": ["standby.db", "pki.db", "ledger.", "server.db"],
        "revoke": ["ledger.", "pki.db", "server.db"],
        "approve": ["server.db"],
    }[what]
    for name in wanted:
        assert any(name in file for file in files), (name, files)
    # And what was begun before the answer is complete: nothing is synced after it.
    late = [w for call, w in calls[answers[-1] :] if call in SYNCED and "status" not in w]
    assert not any("pki.db" in file or "standby" in file for file in late), late
