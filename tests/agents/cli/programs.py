"""Running the program as a person would: words in, two streams and an exit code out."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.cli.main import main
from agents.cli.terminal import Terminal
from agents.runtime.clock import Clock
from tests.support.clock import FakeClock

__all__ = ["Ended", "call"]


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(
    *words: str,
    socket: Path | None = None,
    typed: str | None = None,
    clock: Clock | None = None,
    colour: bool = False,
) -> Ended:
    """Run a command in this process.

    Args:
        words: What stands after the program's name.
        socket: The API; the one of the words or the default if not given.
        typed: What a person types at a terminal; without, there is no terminal.
        clock: Another one than January 2026.
        colour: Whether standard output is a terminal as well.
    """
    interactive = typed is not None
    terminal = Terminal(
        out=Stream(terminal=colour),
        err=Stream(terminal=interactive),
        input=Stream(typed or "", terminal=interactive),
        clock=clock if clock is not None else FakeClock(),
    )
    given: Sequence[str] = () if socket is None else ("--socket", str(socket))
    code = main([*given, *words], terminal=terminal)
    assert isinstance(terminal.out, Stream)
    assert isinstance(terminal.err, Stream)
    return Ended(code, terminal.out.getvalue(), terminal.err.getvalue())
