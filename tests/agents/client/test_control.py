"""A word to a running client from its own machine."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.client.control import Command, serve_control
from agents.runtime.errors import StateError
from agents.runtime.statefiles import CONTROL
from tests.support.links import on_uvloop, until

pytestmark = pytest.mark.sockets


@asynccontextmanager
async def serving(folder: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(serve_control(folder, commands))
    await until(lambda: (folder / CONTROL).is_socket() or task.done())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(folder: Path, word: bytes) -> str:
    def talk() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.settimeout(20)
            asking.bind(str(folder / "asking"))
            try:
                asking.sendto(word, str(folder / CONTROL))
                return asking.recv(4096).decode()
            finally:
                (folder / "asking").unlink()

    return await asyncio.to_thread(talk)


@on_uvloop
class TestControl:
    async def test_a_command_is_carried_out(self, tmp_path: Path) -> None:
        done: list[str] = []

        async def renew() -> None:
            done.append("renew")

        async with serving(tmp_path, {"renew": renew}):
            assert await ask(tmp_path, b"renew") == "ok"
            assert await ask(tmp_path, b"renew") == "ok"
        assert done == ["renew", "renew"]

    async def test_one_that_fails_answers_why_and_ends_nothing(self, tmp_path: Path) -> None:
        async def renew() -> None:
            raise StateError("disk full")

        async with serving(tmp_path, {"renew": renew}):
            assert await ask(tmp_path, b"renew") == "error disk full"
            assert await ask(tmp_path, b"renew") == "error disk full"

    @pytest.mark.parametrize("word", [b"", b"x", b"\xff\xfe", b"renew" * 100])
    async def test_another_word_is_refused_and_ends_nothing(
        self, tmp_path: Path, word: bytes
    ) -> None:
        async def renew() -> None:
            raise AssertionError("nobody asked")

        async with serving(tmp_path, {"renew": renew}):
            for _ in range(2):
                assert "there are: renew" in await ask(tmp_path, word)

    async def test_the_socket_is_for_the_owner_alone_and_goes_with_the_client(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, {}):
            mode = (tmp_path / CONTROL).stat().st_mode
            assert stat.S_IMODE(mode) == 0o600
        assert not (tmp_path / CONTROL).exists()

    async def test_a_socket_that_a_crash_left_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / CONTROL).touch()
        async with serving(tmp_path, {}):
            assert (await ask(tmp_path, b"x")).startswith("error")

    async def test_a_folder_with_too_long_a_name_is_named(self, tmp_path: Path) -> None:
        folder = tmp_path / ("x" * 120)
        folder.mkdir()
        with pytest.raises(StateError, match="cannot listen") as caught:
            await serve_control(folder, {})
        assert "shorter" in caught.value.hint
