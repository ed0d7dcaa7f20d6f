"""The socket of the API: at its start, at its end, and after a crash."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.address import MAX_SOCKET_PATH
from agents.runtime.errors import StateError
from agents.server.api.serve import listening
from tests.agents.cli.fake_server import NEWEST, FakeOperations
from tests.agents.server.api.asking import ask


@pytest.mark.sockets
async def test_what_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with listening(FakeOperations(), path):
        status, _ = await asyncio.to_thread(ask, path, "GET", "/v1/roots")
        assert status == 200
    assert not path.exists()


@pytest.mark.sockets
async def test_a_socket_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with listening(FakeOperations(), path):
        with pytest.raises(StateError, match="in use by another process"):
            async with listening(FakeOperations(), path):
                raise AssertionError("two servers at one socket")
        status, _ = await asyncio.to_thread(ask, path, "GET", "/v1/roots")
        assert status == 200


@pytest.mark.sockets
@pytest.mark.parametrize("kind", ["file", "link"])
async def test_what_is_no_socket_is_not_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "server.sock"
    precious = tmp_path / "precious"
    precious.write_text("a ledger")
    if kind == "file":
        precious.rename(path)
        precious = path
    else:
        path.symlink_to(precious)
    with pytest.raises(StateError, match="is in the way"):
        async with listening(FakeOperations(), path):
            raise AssertionError("something was removed")
    assert precious.read_text() == "a ledger"


@pytest.mark.sockets
async def test_a_path_that_cannot_be_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot make the API socket") as found:
        async with listening(FakeOperations(), tmp_path / "file" / "server.sock"):
            raise AssertionError("no socket lies in a file")
    assert "socket = ..." in found.value.hint


@pytest.mark.sockets
@pytest.mark.parametrize("surplus", [0, 1])
async def test_a_path_has_as_many_bytes_as_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surplus: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("x" * (MAX_SOCKET_PATH + surplus))
    if not surplus:
        async with listening(FakeOperations(), path):
            return
    with pytest.raises(StateError, match="its path has 108 bytes") as found:
        async with listening(FakeOperations(), path):
            raise AssertionError("no socket has such a name")
    assert "107" in found.value.hint


@pytest.mark.sockets
async def test_who_asks_nothing_holds_up_no_end(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as idle:
        async with asyncio.timeout(30), listening(FakeOperations(), path):
            idle.connect(str(path))
    assert not path.exists()


@pytest.mark.sockets
async def test_an_answer_under_way_goes_out_when_the_server_stops(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    operations = FakeOperations()
    asked, go = asyncio.Event(), asyncio.Event()
    roots = operations.roots

    async def slow() -> list[dict[str, Any]]:
        asked.set()
        await go.wait()
        return await roots()

    operations.roots = slow  # type: ignore[method-assign]
    async with asyncio.timeout(30), listening(operations, path):
        answer = asyncio.create_task(asyncio.to_thread(ask, path, "GET", "/v1/roots"))
        await asked.wait()
        asyncio.get_running_loop().call_soon(go.set)
    status, rows = await answer
    assert status == 200
    assert rows[1]["name"] == NEWEST
