"""What is on record when a certificate is in somebody's hands, and what no root has signed."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agents.member.keyring import Credential
from tests.support.daemons import Site
from tests.support.light import LightClient
from tests.support.links import on_uvloop

pytestmark = pytest.mark.sockets

CLIENTS = 60


@on_uvloop
class TestRecord:
    @pytest.mark.req("C8")
    async def test_kill_after_each_answer_loses_no_record(self, site: Site, tmp_path: Path) -> None:
        """The server is killed as soon as an answer is here, 60 times."""
        site.start_server()
        held: list[Credential] = []
        for number in range(CLIENTS):
            client = LightClient(site, tmp_path / str(number))
            held.append(await client.enrol())
            site.server.kill()
            await client.gone()
            await asyncio.to_thread(site.server.start)
        recorded = issued(site)
        for credential in held:
            leaf = credential.leaf
            assert recorded[leaf.serial] == leaf.key_id
        assert site.api.get("status")["signatures"]["client_ca"] == CLIENTS

    @pytest.mark.req("C8")
    async def test_kill_among_many_at_once(self, site: Site, tmp_path: Path) -> None:
        """The first answer of twelve kills the server: whoever has one is on record."""
        site.start_server()
        for round_ in range(3):
            clients = [LightClient(site, tmp_path / f"{round_}-{n}") for n in range(12)]
            work = [asyncio.ensure_future(client.enrol()) for client in clients]
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            site.server.kill()
            ended = await asyncio.gather(*work, return_exceptions=True)
            await asyncio.to_thread(site.server.start)
            recorded = issued(site)
            got = [one for one in ended if isinstance(one, Credential)]
            assert got
            for credential in got:
                assert recorded[credential.leaf.serial] == credential.leaf.key_id
            # The others ask again, for the same keys, and get theirs.
            for client in clients:
                await client.enrol()
                await client.gone()


@on_uvloop
class TestSignatures:
    @pytest.mark.req("A6")
    async def test_clients_cost_no_signature_of_a_root(self, site: Site, tmp_path: Path) -> None:
        site.start_server()
        before = await asyncio.to_thread(site.api.get, "status")
        clients = [LightClient(site, tmp_path / str(number)) for number in range(CLIENTS)]
        room = asyncio.Semaphore(12)  # below what one address may have under way

        async def enrol(client: LightClient) -> Credential:
            async with room:
                return await client.enrol()

        held = await asyncio.gather(*(enrol(client) for client in clients))
        after = await asyncio.to_thread(site.api.get, "status")
        assert after["signatures"]["root"] == before["signatures"]["root"]
        assert after["signatures"]["client_ca"] == before["signatures"]["client_ca"] + CLIENTS
        assert len({credential.leaf.key_id for credential in held}) == CLIENTS
        for client in clients:
            await client.gone()

    @pytest.mark.req("A8")
    async def test_the_chain_comes_along(self, site: Site, tmp_path: Path) -> None:
        site.start_server()
        client = LightClient(site, tmp_path / "one")
        held = await client.enrol()
        await client.gone()
        assert len(held.chain) == 3
        keys = {row["kind"]: row for row in site.api.get("status")["keys"]}
        assert held.issuer_id is not None
        assert held.issuer_id.hex() == site.api.get("status")["id"]
        assert held.leaf.not_after.isoformat() <= keys["client-ca"]["not_after"]


def issued(site: Site) -> dict[int, bytes]:
    """Serial number and key of every certificate on record, from the database itself."""
    database = sqlite3.connect(f"file:{site.server.state / 'server.db'}?mode=ro", uri=True)
    try:
        rows = database.execute("select serial, key_id from issued").fetchall()
    finally:
        database.close()
    return {int.from_bytes(serial): key_id for serial, key_id in rows}
