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
from agents.lab.layout import Layout, Place, make_layout
from agents.lab.page import Page
from agents.lab.processes import Forked, Nursery, Separate, Spawner
from agents.lab.progress import Display, Observed
from agents.lab.scene import Scene, Step
from agents.lab.story import STEPS, tell
from agents.lab.time import Conductor
from agents.runtime.clock import SystemClock, monotonic_ns
from agents.runtime.errors import Exit

__all__ = ["Options", "run"]

RATE: Final = 300.0
"""Policy time per network time while somebody is at work, unless said otherwise."""
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


def run(options: Options, *, out: TextIO | None = None, steps: tuple[Step, ...] = STEPS) -> int:
    """Run a lab to its end; returns the exit code: 0 only if everything was observed."""
    out = sys.stdout if out is None else out
    # First of all: a process that has a loop or a thread must not be forked from.
    nursery = None if options.separate else Nursery(node.run_node, node.warm)
    root = Path(tempfile.mkdtemp(prefix="anchorline-lab-"))
    good = False
    try:
        layout = make_layout(root, options.clients)
        layout.prepare()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            told = runner.run(_live(options, layout, nursery, out, steps))
        good = len(told) == len(steps) and all(one.ok for one in told)
    except KeyboardInterrupt:
        return 130
    finally:
        if nursery is not None:
            nursery.close()
        if good or options.keep:
            shutil.rmtree(root, ignore_errors=True)
        elif not options.json:
            print(f"state and logs are kept in {root}", file=out)
    return Exit.OK if good else Exit.ERROR


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
