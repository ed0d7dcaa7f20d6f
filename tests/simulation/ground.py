"""Simulated ground under the product's feet: whatever it asks of a machine, it gets from a world.

A disk is asked for by whoever runs at the moment (`machine.current`), so each program has the one
of its machine. Reports, control sockets and the API's socket are stubs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import agents.client.app
import agents.hub.app
import agents.member.starting
import agents.server.api.serve
import agents.server.app
import agents.zone_server.app
from agents.member.keyring import Credential, Keyring
from agents.member.trust import Trust
from agents.responder.records import AckRecord
from agents.runtime.files import DiskFiles
from agents.server.acknowledgements import Acknowledgements
from agents.zone_server.app import ZoneServer
from tests.simulation.machine import current
from tests.simulation.watch import Watch

__all__ = ["Lines", "ground"]


class _NoStatus:
    """Writes no report."""

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    async def run(self) -> None:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()

    def write(self) -> None:
        """Write nothing."""


async def _no_control(*_args: object) -> None:
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _no_api(*_args: object) -> AsyncIterator[None]:
    yield


def _disk(name: str) -> Callable[..., Any]:
    """A method of the product's one disk that asks whose disk it is."""

    def call(_self: DiskFiles, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        program = current.get()
        if program is None:
            raise RuntimeError("somebody without a machine uses a disk")
        return getattr(program.disk, name)(*args, **options)

    return call


class Lines(list[dict[str, object]]):
    """Takes every log line."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def append(self, record: dict[str, object]) -> None:
        self._watch.logged(record)


def ground(watch: Watch) -> Iterator[contextlib.AbstractContextManager[object]]:
    for name in ("read_file", "write_atomic", "write_new", "exists", "remove"):
        yield patch.object(DiskFiles, name, _disk(name))
    # Locks are between processes, and reports and control sockets for people.
    yield patch.object(agents.member.starting, "lock_state", lambda *_: contextlib.nullcontext())
    for app in (agents.client.app, agents.hub.app, agents.server.app, agents.zone_server.app):
        yield patch.object(app, "Status", _NoStatus)
    yield patch.object(agents.server.app, "_private_folder", lambda _folder: None)
    yield patch.object(agents.client.app, "serve_control", _no_control)
    yield patch.object(agents.client.app, "version", lambda: "0")
    yield patch.object(agents.server.api.serve, "listening", _no_api)
    # Places where somebody looks on.
    activate, take, kept = Keyring.activate, Acknowledgements.take, ZoneServer._acknowledged

    def watched_activate(self: Keyring, *args: Any) -> Credential:  # noqa: ANN401
        credential = activate(self, *args)
        watch.activated(credential)
        return credential

    async def watched_take(self: Acknowledgements, ack: AckRecord, trust: Trust) -> None:
        watch.acknowledged(ack)
        await take(self, ack, trust)

    async def watched_kept(self: ZoneServer, ack: AckRecord) -> None:
        watch.acknowledged(ack)
        await kept(self, ack)

    yield patch.object(Keyring, "activate", watched_activate)
    yield patch.object(Acknowledgements, "take", watched_take)
    yield patch.object(ZoneServer, "_acknowledged", watched_kept)
