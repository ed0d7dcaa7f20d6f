"""`anchorline logs`: the JSON lines of one or many components, merged and readable.

    anchorline logs --trace 5f2c0a91 /var/log/anchorline
    anchorline logs -f --event link.refused server.log hub.log
    journalctl -o cat -u 'anchorline-*' | anchorline logs --trace 5f2c0a91 -

Each file is in the order of its own time; together they are merged by `ts`, so one trace reads
from top to bottom through every component that it passed. With more than one file, each line
begins with the name of its file. A line that is no JSON object (a traceback of an interpreter,
say) is shown where it stood, and only when nothing was asked for in particular.
"""

import asyncio
import fnmatch
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import click

from agents.cli.terminal import Terminal, json_option, pass_terminal
from agents.runtime.errors import AgentError, reason_of
from agents.runtime.events import EVENTS
from agents.runtime.logs import render

__all__ = ["Line", "Query", "Tail", "logs", "merge", "parse"]

FOLDER = Path("/var/log/anchorline")
PATTERN = "*.log"
STDIN = Path("/dev/stdin")
WHERE = (
    "name files or a folder; a daemon writes to the file that `log` in its configuration names,"
    " otherwise to the journal: journalctl -o cat -u 'anchorline-*' | anchorline logs -"
)
MAX_LINE = 1 << 20
"""Bytes of a line; a longer one is cut, and then no JSON."""
PAUSE = 0.2
"""Seconds of network time between two looks at files that are followed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file."""

    source: str
    """Name of its file, without folder and suffix."""
    ts: str
    """When; ISO 8601 in UTC, which sorts as it is. A line without has that of the one before."""
    record: Mapping[str, object] | None
    """None where it is no JSON object."""
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which lines are asked for; all of them by default."""

    trace: str = ""
    client: str = ""
    events: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing in particular was asked for."""
        return not (self.trace or self.client or self.events)

    def matches(self, line: Line) -> bool:
        """Whether a line is asked for."""
        if self.everything:
            return True
        record = line.record
        if record is None:
            return False
        if self.trace and not str(record.get("trace", "")).startswith(self.trace):
            return False
        if self.events and not any(_names(str(record.get("event", "")), e) for e in self.events):
            return False
        return not self.client or self._about(line.source, record)

    def _about(self, source: str, record: Mapping[str, object]) -> bool:
        """Whether a component wrote the line, or is named in it."""
        return source == self.client or any(
            # "client/07ab..." is how a peer is written.
            isinstance(value, str) and value.rpartition("/")[2].startswith(self.client)
            for name, value in record.items()
            if name not in ("ts", "level", "event", "role", "trace")
        )


@dataclass(slots=True)
class Tail:
    """One file that is read as it grows, is cut, or is replaced by another of its name."""

    path: Path
    _stream: BinaryIO | None = None
    _rest: bytes = b""
    _ts: str = field(default="")

    def lines(self) -> Iterator[Line]:
        """Yield the lines that are complete and were not yielded before."""
        while True:
            stream = self._stream = self._stream or self.path.open("rb")
            for data in iter(lambda: stream.readline(MAX_LINE), b""):  # noqa: B023 - used at once
                self._rest += data
                if self._rest.endswith(b"\n") or len(self._rest) >= MAX_LINE:
                    whole, self._rest = self._rest, b""
                    yield self._parse(whole)
            if not self._replaced(stream):
                return
            self.close()
            self._rest = b""

    def close(self) -> None:
        """Let go of the file; `lines` would begin again. Idempotent."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def last(self) -> Iterator[Line]:
        """Yield what stands behind the last end of line: of a file that will not grow."""
        if self._rest:
            whole, self._rest = self._rest, b""
            yield self._parse(whole)

    def _parse(self, data: bytes) -> Line:
        line = parse(data, source=self.path.stem, before=self._ts)
        self._ts = line.ts
        return line

    def _replaced(self, stream: BinaryIO) -> bool:
        """Whether the name leads to another file now, or to one that was cut."""
        if not stream.seekable():
            return False  # a pipe: when it ends there is no more
        try:
            now = self.path.stat()
        except OSError:
            return False
        then = os.fstat(stream.fileno())
        moved = (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)
        return moved or now.st_size < stream.tell()


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--trace", default="", metavar="ID", help="Only this trace; its beginning will do.")
@click.option(
    "--client",
    default="",
    metavar="ID",
    help="Only what a component wrote, or what names it: its id, the beginning, or its file.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="NAME",
    help='Only these events: "link.refused", "link" for all of a noun, "*.failed".',
)
@json_option
@pass_terminal
def logs(
    terminal: Terminal,
    files: Sequence[Path],
    follow: bool,
    trace: str,
    client: str,
    events: Sequence[str],
) -> None:
    """Read the logs of components, merged by time.

    FILE is a file of JSON lines, or - for standard input; FOLDER stands for the *.log files below
    it; without either, /var/log/anchorline.
    """
    for pattern in events:
        if not any(_names(event, pattern) for event in EVENTS):
            raise click.BadParameter(f"no event is called {pattern!r}", param_hint="'--event'")
    query = Query(trace.lower(), client, tuple(events))
    tails = {path: Tail(path) for path in _expand(files)}
    wide = max((len(path.stem) for path in tails), default=0) if len(tails) > 1 else 0
    view = _View(terminal, query, wide)
    try:
        view.show(merge(_read(tail, follow) for tail in tails.values()))
        if follow:
            asyncio.run(_follow(view, files, tails))
        elif not view.shown and not query.everything:
            terminal.say("no line is about that")
    finally:
        for tail in tails.values():
            tail.close()


def merge(sources: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Yield the lines of several files in the order of their time."""
    return heapq.merge(*sources, key=lambda line: line.ts)


def parse(data: bytes, *, source: str, before: str) -> Line:
    """Read one line.

    Args:
        data: The line as it is in the file.
        source: Name of its file.
        before: `ts` of the line before it, which one without takes over: it belongs there.
    """
    text = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return Line(source, before, None, text)
    ts = record.get("ts")
    # A clock that was set back does not move a line before the one that was written before it.
    return Line(source, max(ts, before) if isinstance(ts, str) else before, record, text)


class _View:
    """What is asked for, on a terminal or for programs."""

    def __init__(self, terminal: Terminal, query: Query, wide: int) -> None:
        self._terminal = terminal
        self._query = query
        self._wide = wide
        self.shown = False
        """Whether there was a line that is asked for."""

    def show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if self._query.matches(line):
                self.shown = True
                self._write(line)
        self._terminal.out.flush()

    def _write(self, line: Line) -> None:
        if self._terminal.json:
            if line.record is not None:
                self._terminal.show(json.dumps({"source": line.source, **line.record}))
            return
        if line.record is None:
            text = line.text if line.text.isprintable() else ascii(line.text)[1:-1]
        else:
            text = render(line.record, colour=self._terminal.colour)
        name = line.source if line.source.isprintable() else ascii(line.source)[1:-1]
        self._terminal.show(f"{name:<{self._wide}}  {text}" if self._wide else text)


def _read(tail: Tail, follow: bool) -> Iterator[Line]:
    try:
        yield from tail.lines()
        if not follow:
            yield from tail.last()
    except OSError as exc:
        hint = WHERE if isinstance(exc, FileNotFoundError) else ""
        raise AgentError(f"cannot read {tail.path}: {reason_of(exc)}", hint=hint) from exc


async def _follow(view: _View, files: Sequence[Path], tails: dict[Path, Tail]) -> None:
    """Show what is added, until somebody interrupts."""
    while True:
        await view._terminal.clock.sleep(PAUSE)
        for path in _expand(files):  # a component that was started since
            tails.setdefault(path, Tail(path))
        added = [line for tail in tails.values() for line in _read(tail, True)]
        view.show(sorted(added, key=lambda line: line.ts))


def _expand(files: Sequence[Path]) -> list[Path]:
    """Return the files that are meant, each once.

    Raises:
        AgentError: There is none.
    """
    found: dict[Path, None] = {}
    for path in files or [FOLDER]:
        if path == Path("-"):
            found[STDIN] = None
        elif path.is_dir():
            found |= dict.fromkeys(sorted(path.rglob(PATTERN)))
        else:
            found[path] = None
    if not found:
        raise AgentError("no log files", hint=WHERE)
    return list(found)


def _names(event: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(event, pattern) or event.startswith(f"{pattern}.")
