"""`anchorline lab`: composition, from options to an exit code.

    nursery forked  ->  folder, page, conductor  ->  story  ->  table  ->  everything stopped

The order matters: nothing here may start a loop or a thread before the nursery is forked.
"""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import uvloop

from agents.lab import node
from agents.lab.clock import to_micros
from agents.lab.deployment import Deployment
from agents.lab.layout import LOGS, Layout, Place, make_layout
from agents.lab.observer import read_log
from agents.lab.page import Page
from agents.lab.processes import Forked, Nursery, Separate, Spawner
from agents.lab.progress import Display, Observed
from agents.lab.scene import Scene, Step
from agents.lab.story import STEPS, tell
from agents.lab.time import Conductor
from agents.runtime.clock import SystemClock, monotonic_ns
from agents.runtime.errors import Exit, StateError, reason_of

__all__ = ["Options", "run"]

RATE: Final = 300.0
"""Policy time per network time while somebody is at work, unless said otherwise."""
INTERRUPTED: Final = 130
"""What a shell says of a program that was interrupted."""
SHOW_RATE: Final = 600.0
"""The same for an audience: a window of four hours takes 24 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    clients: int = 12
    speed: float | None = None
    show: bool = False
    keep: bool = False
    json: bool = False
    separate: bool = False
    """Start each component as an interpreter of its own."""
    folder: Path | None = None
    """Where state and logs go: a new or an empty folder. By default a temporary one."""


def run(options: Options, *, out: TextIO | None = None, steps: tuple[Step, ...] = STEPS) -> int:
    """Run a lab to its end; returns the exit code: 0 only if everything was observed."""
    out = sys.stdout if out is None else out
    root = _folder(options.folder)
    # First of all: a process that has a loop or a thread must not be forked from.
    nursery = None if options.separate else Nursery(node.run_node, node.warm)
    good = False
    try:
        layout = make_layout(root, options.clients)
        layout.prepare()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            told = runner.run(_live(options, layout, nursery, out, steps))
        good = len(told) == len(steps) and all(one.ok for one in told)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if nursery is not None:
            nursery.close()
        if good:
            _leave_logs(root)
        elif not options.json:
            print(f"state and logs are kept in {root}", file=out)
    return Exit.OK if good else Exit.ERROR


def _folder(wanted: Path | None) -> Path:
    """Make the lab's folder.

    Raises:
        StateError: it is there and not empty, or cannot be made.
    """
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="anchorline-lab-"))
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        used = any(wanted.iterdir())
    except OSError as exc:
        raise StateError(f"cannot use {wanted}: {reason_of(exc)}") from exc
    if used:
        raise StateError(f"{wanted} is not empty", hint="name a new folder, or remove this one")
    return wanted.absolute()


def _leave_logs(root: Path) -> None:
    """Remove all but the logs, which hold no secret."""
    for path in root.iterdir():
        if path.is_dir() and path.name != LOGS:
            shutil.rmtree(path, ignore_errors=True)
        elif not path.is_dir():
            path.unlink(missing_ok=True)


async def _live(
    options: Options,
    layout: Layout,
    nursery: Nursery | None,
    out: TextIO,
    steps: tuple[Step, ...],
) -> list[Observed]:
    clock = SystemClock()
    display = Display(out, json=options.json, monotonic=clock.monotonic)
    started = clock.monotonic()
    display.title(
        f"a server, a hub, a zone server and {options.clients} clients in {layout.root}\n"
    )
    page = Page.create(to_micros(clock.now()), monotonic_ns())
    rate = options.speed or (SHOW_RATE if options.show else RATE)
    async with (
        _spawner(nursery) as spawner,
        Conductor(page, rate=rate, progress=display.time) as conductor,
    ):
        deployment = Deployment(layout, conductor, page, spawner, clock)
        scene = Scene(deployment, _sleeper(layout), layout.newcomer(), show=options.show)
        try:
            told = await tell(scene, display, steps)
            display.summary(told, clock.monotonic() - started)
            display.title(_worth_trying(layout, scene.sleeper))
            if options.keep:
                display.title(_how_to_look(layout))
                await _interrupted()
        finally:
            await deployment.stop_all()
    page.close()
    return told


@contextlib.asynccontextmanager
async def _spawner(nursery: Nursery | None) -> AsyncIterator[Spawner]:
    spawner: Spawner = Separate() if nursery is None else Forked(nursery)
    try:
        yield spawner
    finally:
        await spawner.close()


def _sleeper(layout: Layout) -> Place:
    """client-07, as everybody calls it; in a small lab the last one inside."""
    return layout.inside[6] if len(layout.inside) > 6 else layout.inside[-1]


async def _interrupted() -> None:
    """Return when somebody ends the lab."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    await event.wait()


def _worth_trying(layout: Layout, client: Place) -> str:
    """Three commands on the logs, which stay."""
    lines = read_log(layout.server.log)
    traces = [line["trace"] for line in lines if line["event"] == "root.created"]
    return "\n".join(
        [
            "\nthe logs stay; worth trying:",
            *(f"  anchorline logs --trace {traces[0]} {layout.logs}" for _ in traces[:1]),
            f"  anchorline logs --event link.refused {layout.logs}",
            f"  anchorline logs --client {client.name} {layout.logs}",
        ]
    )


def _how_to_look(layout: Layout) -> str:
    return "\n".join(
        [
            "\nleft running until it is interrupted; in another terminal:",
            f"  anchorline --socket {layout.socket} status",
            f"  anchorline --socket {layout.socket} root new",
            f"  anchorline pki show --state {layout.inside[0].state}",
            f"  anchorline logs -f {layout.logs}",
        ]
    )
