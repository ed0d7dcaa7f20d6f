"""The init bundle as it is downloaded: whole, counted, and without a secret."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from agents.server.app import Server
from agents.server.bundling import export
from agents.server.errors import OperationError
from agents.server.store import audit, bundles
from pki import keys
from pki.bundle import open_bundle
from pki.trust import from_bundle
from tests.support.logs import logged
from tests.support.servers import prepared

ME = "unix:alice"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with prepared(tmp_path) as made:
        yield made


@pytest.mark.req("D1")
async def test_each_download_is_recorded_and_counted(server: Server) -> None:
    with logged() as lines:
        first, fingerprint, count = await export(server, ME, {})
    assert count == 1
    (line,) = [line for line in lines if line["event"] == "bundle.exported"]
    assert (line["actor"], line["count"]) == (ME, 1)
    assert line["deployment_fingerprint"] == fingerprint
    assert fingerprint == server.trust.state.fingerprint == open_bundle(first).fingerprint
    _, _, count = await export(server, "unix:bob", {})
    assert count == 2
    downloads = await server.store.read(bundles.every)
    assert [one.actor for one in downloads] == [ME, "unix:bob"]
    assert downloads[0].fingerprint.hex() == fingerprint
    records = await server.store.read(partial(audit.latest, action="bundle."))
    assert [one.act.actor for one in records] == ["unix:bob", ME]
    assert (await server.store.read(bundles.contents)).count(first) == 1


@pytest.mark.req("D4")
async def test_a_bundle_leads_to_what_the_server_itself_trusts(server: Server) -> None:
    await server.new_root(bytes(32))
    server.revoke([server.authority.chain.roots[0].key_id], bytes(32))
    content, _, _ = await export(server, ME, {})
    state = from_bundle(open_bundle(content))
    assert state.chains == server.trust.state.chains
    assert state.heads == server.trust.state.heads


@pytest.mark.req("A4", "D3")
async def test_a_bundle_contains_no_private_key(server: Server) -> None:
    content, _, _ = await export(server, ME, {"log_level": "debug"})
    secrets = [
        server.keyring.identity,
        *(held.key for held in server.keyring.credentials),
        *(key for id in server.keyring.root_ids if (key := server.keyring.root(id))),
        *server.standby.load().values(),
    ]
    assert len(secrets) == 1 + 3 + 1 + 16
    for key in secrets:
        assert key.private_numbers().private_value.to_bytes(32, "big") not in content
        assert keys.private_bytes(key) not in content


@pytest.mark.req("D3")
async def test_settings_picked_at_export_are_in_it(server: Server) -> None:
    picked = {"ServerNameList": "a.example,b.example", "log_level": "debug"}
    content, _, _ = await export(server, ME, picked)
    assert open_bundle(content).settings == picked


@pytest.mark.req("D3")
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ServerNamelist": "a"}, "no setting 'ServerNamelist'"),
        ({"log_level": "loud"}, "expected one of debug"),
        ({"port": "0"}, "from 1 to 65535"),
        ({"port": "14172 "}, "from 1 to 65535"),
        ({"ServerNameList": "a,,b"}, "expected host:port,host:port"),
        ({"ServerNameList": ""}, "expected host:port,host:port"),
        ({"ServerNameList": "a:b"}, "port is 'b'"),
        ({"ServerNameList": "a b"}, "address is 'a b'"),
    ],
)
async def test_what_nobody_would_read_is_refused_at_export(
    server: Server, settings: dict[str, str], why: str
) -> None:
    with pytest.raises(OperationError, match=why) as refusal:
        await export(server, ME, settings)
    assert refusal.value.code == "bad-input"
    assert await server.store.read(bundles.count) == 0


@pytest.mark.parametrize(
    "settings", [{"": "x"}, {"x" * 65: "y"}, {"x": "y" * 5000}, {str(n): "" for n in range(300)}]
)
async def test_settings_that_a_bundle_cannot_carry_are_refused(
    server: Server, settings: dict[str, str]
) -> None:
    with pytest.raises(OperationError) as refusal:
        await export(server, ME, settings)
    assert refusal.value.code == "bad-input"
    assert await server.store.read(bundles.count) == 0
