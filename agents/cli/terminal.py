"""Where a command reads and writes, and how it asks.

1. Results go to standard output, talk goes to standard error.
2. A command that destroys something asks first. Without a terminal it does not ask and does
   not go on: it names the option that says yes.
3. Text that came from elsewhere is shown without what moves a cursor (`plain`).
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import click

from agents.cli import tables
from agents.runtime.clock import Clock, SystemClock
from agents.runtime.errors import AgentError, Exit

__all__ = ["AbortedError", "NotAskedError", "Terminal", "json_option", "pass_terminal", "plain"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SOCKET = Path("/run/anchorline/server.sock")


class NotAskedError(AgentError):
    """There is nobody to ask, and nobody has said yes beforehand."""

    exit_code = Exit.USAGE


class AbortedError(AgentError):
    """Somebody was asked and said no."""


@dataclass
class Terminal:
    """The streams of one command, and what its global options say."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    input: TextIO = field(default_factory=lambda: sys.stdin)
    clock: Clock = field(default_factory=SystemClock)
    socket: Path = DEFAULT_SOCKET
    json: bool = False
    code: int = 0
    """What the process ends with, if nothing fails."""

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked."""
        return self.input.isatty() and self.err.isatty()

    @property
    def colour(self) -> bool:
        """Whether the result is read on a terminal."""
        return self.out.isatty()

    @property
    def binary(self) -> BinaryIO:
        """Standard output for bytes."""
        return self.out.buffer

    def say(self, text: str = "") -> None:
        """Write a line of talk."""
        print(text, file=self.err)

    def show(self, text: str = "") -> None:
        """Write a line of the result."""
        print(text, file=self.out)

    def show_json(self, value: object) -> None:
        """Write the result for programs."""
        # ASCII only: what a peer has called itself cannot move a terminal's cursor here either.
        print(json.dumps(value, indent=2), file=self.out)

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Sequence[tables.Column],
        *,
        empty: str,
        talk: bool = False,
    ) -> None:
        """Write rows as a table; `empty` is said where there are none."""
        if not rows:
            self.say(empty)
            return
        for line in tables.lines(rows, columns):
            (self.say if talk else self.show)(line)

    def confirm(self, question: str, *, yes: bool, option: str = "--yes") -> None:
        """Return if somebody says yes, or has said it beforehand.

        Raises:
            NotAskedError: There is no terminal, and `yes` is false.
            AbortedError: They said something else.
        """
        if yes:
            return
        if not self.interactive:
            raise NotAskedError(
                "this asks before it goes on, and there is no terminal to ask at",
                hint=f"look at what is shown above, and say {option} if that is what you want",
            )
        print(f"{question} [y/N] ", end="", file=self.err, flush=True)
        if self.input.readline().strip().lower() not in ("y", "yes"):
            raise AbortedError("nothing was changed")


pass_terminal = click.make_pass_decorator(Terminal)


def json_option(command: F) -> F:
    """Let a command take --json, as the program itself does."""

    def turn_on(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Terminal).json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=turn_on,
        help="Write the result for programs.",
    )(command)


def plain(text: object) -> str:
    """Return text of any origin as visible characters on one line."""
    shown = "-" if text is None else str(text)
    return shown if shown.isprintable() else ascii(shown)[1:-1]
