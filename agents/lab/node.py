"""One component of a lab, as a process of its own: the real daemon under the lab's clock.

This is the only way to a daemon with another clock than the machine's: `anchorline <role> run`
has no option, setting or variable for one. In this order, before anything of it runs:

1. its configuration is read and checked as always;
2. its state directory must be one that a lab has made (`layout.MARKER`);
3. policy time is attached: a page, and a socket to whoever moves it.

If the lab is gone, the component stops: policy time would stand for ever.
"""

import importlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from agents.lab.clock import LabClock
from agents.lab.layout import check_marker
from agents.runtime import logs
from agents.runtime.clock import Clock
from agents.runtime.config import load
from agents.runtime.errors import AgentError
from agents.runtime.lifecycle import Stop, report, run
from agents.runtime.notify import Notifier

__all__ = ["ROLES", "Program", "main", "program", "run_node", "warm"]

ROLES: Final = ("server", "hub", "zone-server", "client")


class NodeConfig(Protocol):
    """What every role's configuration has."""

    @property
    def state(self) -> Path:
        """The state directory."""
        ...

    @property
    def log(self) -> Path | None:
        """The log file."""
        ...

    @property
    def log_level(self) -> str | None:
        """How much is logged."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """A daemon: its configuration and its `run`."""

    config: type[NodeConfig]
    run: Callable[..., Awaitable[None]]


def program(role: str) -> Program:
    """Import a daemon, and nothing of another's.

    Raises:
        ValueError: there is no such role.
    """
    if role not in ROLES:
        raise ValueError(f"role is {role!r}, not one of {', '.join(ROLES)}")
    package = f"agents.{role.replace('-', '_')}"
    config = importlib.import_module(f"{package}.config").Config
    return Program(config, importlib.import_module(f"{package}.app").run)


def warm() -> None:
    """Import every daemon, for those that will be forked."""
    for role in ROLES:
        program(role)


class Readiness(Notifier):
    """Instead of a supervisor, the lab hears that the daemon is ready: it gives its hold back."""

    def __init__(self, clock: LabClock) -> None:
        super().__init__(None)
        self._clock = clock

    def ready(self, status: str = "") -> None:
        """See `Notifier.ready`."""
        super().ready(status)
        self._clock.ready()


def run_node(role: str, config: Path, page: int | Path, socket_fd: int) -> int:
    """Run one component until it ends; returns the exit code of the process.

    Args:
        role: one of `ROLES`.
        config: its configuration file.
        page: descriptor or path of the lab's page.
        socket_fd: descriptor of its socket to the conductor.
    """
    try:
        daemon = program(role)
        read = load(config, daemon.config)
        check_marker(read.state)
        lost = Lost()
        clock = LabClock.attach(page, socket_fd, on_lost=lost)
    except (AgentError, ValueError) as exc:
        return report(exc)
    try:
        logs.configure(role, clock=clock, path=read.log, level=read.log_level or "info")
    except AgentError as exc:
        return report(exc)
    return run(partial(_live, daemon, read, clock, lost), clock=clock, notifier=Readiness(clock))


class Lost:
    """Asks the daemon to stop when the lab is gone."""

    def __init__(self) -> None:
        self.stop: Stop | None = None

    def __call__(self) -> None:
        """The lab has closed its end."""
        if self.stop is not None:
            self.stop.request("the lab is gone")


async def _live(daemon: Program, config: NodeConfig, clock: Clock, lost: Lost, stop: Stop) -> None:
    lost.stop = stop
    await daemon.run(config, clock=clock, stop=stop)


def main(argv: list[str]) -> int:
    """`anchorline lab-node ROLE CONFIG PAGE SOCKET`: for `anchorline lab --exec` only.

    Args:
        argv: role, configuration file, path or descriptor of the page, descriptor.
    """
    if len(argv) != 4 or not argv[3].isdigit():
        print(
            "anchorline: error: lab-node is started by `anchorline lab`, not by hand",
            file=sys.stderr,
        )
        return 2
    role, config, page, socket_fd = argv
    return run_node(role, Path(config), int(page) if page.isdigit() else Path(page), int(socket_fd))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
