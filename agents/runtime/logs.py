"""Logs: one JSON object a line, made of an event's name and its fields.

    log = logs.get_logger()
    log.info("daemon.started", version="0.1.0")
    link_log = log.bind(link="5f2c", peer=key_id)

    {"ts":"2026-03-01T09:00:00.000Z","level":"info","event":"daemon.started",
     "role":"client","id":"0f3a...","version":"0.1.0"}

1. An event is a literal `noun.verb` of the vocabulary in `events`; what varies is a field. A
   test reads every call in the source and compares.
2. `ts` is policy time; on a terminal, or when asked, the same line is rendered for people.
3. Bytes are written as lower-case hex, so a KeyID is one text everywhere (A11). An object that
   is none of the plain types is written as the name of its type and nothing else: a private key
   or a configuration handed in by mistake must not end up in a file.
4. Text is cut at `MAX_TEXT` characters and escaped: what a peer sent cannot forge a line, nor
   move a terminal's cursor.
5. A line that is written while a message is handled, or while something that follows from it is
   done, has the message's `trace` without being told.
6. Logging never raises and never stops a daemon: a line that cannot be written is counted in
   `lost` and reported with the next one that can.

There is one output a process; loggers may be made before it is configured and follow it.
"""

import os
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path, PurePath
from typing import IO, ClassVar, Final, Protocol

import msgspec
import structlog

from agents.runtime.errors import StateError, reason_of
from agents.runtime.trace import current_trace

__all__ = [
    "LEVELS",
    "MAX_TEXT",
    "Level",
    "Logger",
    "capture",
    "configure",
    "get_logger",
    "identify",
    "render",
    "reopen",
    "set_level",
    "silence",
]


class Level(StrEnum):
    """How much is logged: this and what is worse."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LEVELS: Mapping[str, int] = {level.value: 10 * (n + 1) for n, level in enumerate(Level)}
"""The levels, and how they compare."""

MAX_TEXT = 2000
"""Characters of one text field; a traceback may have ten times as many (its end counts)."""


class HasNow(Protocol):
    """The part of a clock that a log line needs."""

    def now(self) -> datetime:
        """Return policy time."""
        ...


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"


class _Output:
    """Where lines of this process go, and what all of them say. Threads may share it."""

    def __init__(self) -> None:
        self.level = LEVELS["warning"]
        self.role = ""
        self.id = ""
        self.clock: HasNow | None = None
        self.human = False
        self.colour = False
        self.path: Path | None = None
        self.lost = 0
        self._handle: int | None = None
        self._stream: IO[str] | None = None
        self._records: list[dict[str, object]] | None = None
        self._lock = threading.Lock()

    def to_file(self, path: Path) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StateError(
                f"cannot open log file {path}: {reason_of(exc)}",
                hint="create its folder, and let the user of the service write there",
            ) from exc
        # Whoever logs a refusal logs where it came from: not for other users of the machine.
        os.fchmod(handle, 0o600)
        with self._lock:
            self.close()
            self.path, self._handle = path, handle

    def to_stream(self, stream: IO[str]) -> None:
        with self._lock:
            self.close()
            self._stream = stream

    def to_records(self, records: list[dict[str, object]]) -> None:
        with self._lock:
            self.close()
            self._records = records

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self.path = self._handle = self._stream = self._records = None

    def write(self, record: dict[str, object]) -> None:
        with self._lock:
            if self._records is not None:
                self._records.append(record)
                return
            if self._handle is None and self._stream is None:
                return
            if self.lost:
                record["lost"] = self.lost
            try:
                self._write(self._encode(record))
            except (OSError, ValueError):  # ValueError: the stream was closed
                self.lost += 1
            else:
                self.lost = 0

    def _encode(self, record: dict[str, object]) -> bytes:
        if self.human:
            return (render(record, colour=self.colour) + "\n").encode()
        return _JSON.encode(record) + b"\n"

    def _write(self, line: bytes) -> None:
        if self._handle is not None:
            # One append: lines of two processes do not mix. A short write is a full disk.
            if os.write(self._handle, line) != len(line):
                raise OSError("short write")
            return
        assert self._stream is not None  # `write` returned otherwise
        buffer = getattr(self._stream, "buffer", None)
        if buffer is not None:
            buffer.write(line)
            buffer.flush()
        else:
            self._stream.write(line.decode())
            self._stream.flush()


_OUTPUT = _Output()
_JSON = msgspec.json.Encoder(enc_hook=_type_name)


class Logger(structlog.BoundLoggerBase):
    """What `get_logger` returns. `bind(**fields)` returns one that adds fields to each line."""

    debugging: ClassVar[bool] = False
    """Whether `debug` writes: who logs for each message asks before it gathers fields."""

    def debug(self, event: str, **fields: object) -> None:
        """Log what helps to find a fault and nobody reads otherwise."""
        if _OUTPUT.level <= 10:
            _say("debug", event, self._context, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log what happened in the normal course of things."""
        if _OUTPUT.level <= 20:
            _say("info", event, self._context, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log what an operator should know of, and perhaps do something about."""
        if _OUTPUT.level <= 30:
            _say("warning", event, self._context, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log what failed and needs somebody."""
        if _OUTPUT.level <= 40:
            _say("error", event, self._context, fields)

    def exception(
        self, event: str, error: BaseException | None = None, /, **fields: object
    ) -> None:
        """Log an error of our own program, with its traceback, or that of the one in hand."""
        if _OUTPUT.level <= 40:
            said = traceback.format_exc() if error is None else _traceback(error)
            _say("error", event, self._context, {"traceback": said[-10 * MAX_TEXT :], **fields})


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _say(level: str, event: str, bound: Mapping[str, object], fields: Mapping[str, object]) -> None:
    """Put the common fields first, make every value plain, and write the record.

    Of structlog the loggers and their `bind` are used, and not its chain of processors: a link
    has two lines, and this is a twentieth of its handshake.
    """
    output = _OUTPUT
    record: dict[str, object] = {
        "ts": _ts(output.clock.now()) if output.clock is not None else "",
        "level": level,
        "event": event,
        "role": output.role,
        "id": output.id,
        **bound,
        **fields,
    }
    for name, value in record.items():
        if type(value) is str:
            if not (value.isascii() and len(value) <= MAX_TEXT) and name != "traceback":
                record[name] = _text(value)
        elif type(value) not in _PLAIN:
            record[name] = _plain(value)
    if "trace" not in record and (trace := current_trace.get()):
        record["trace"] = trace
    output.write(record)


_PLAIN: Final = frozenset({int, bool, float, type(None)})
"""What JSON has as it is; text only if it is short and can be encoded."""
_SEQUENCES: Final = frozenset({tuple, list})


def _stamp(date: datetime) -> str:
    utc = date if date.tzinfo is UTC else date.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")[:-6] + "Z"


class _Stamps:
    """Gives `_stamp` of the present; of the lines of one second only the first has it made."""

    def __init__(self) -> None:
        # No date is in it.
        self._second = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), ""

    def __call__(self, now: datetime) -> str:
        first, last, text = self._second  # in one step, and written in one: threads share it
        if not first <= now <= last:
            first, last = now.replace(microsecond=0), now.replace(microsecond=999_999)
            text = _stamp(first)[: -len("000Z")]
            self._second = first, last, text
        return f"{text}{now.microsecond // 1000:03}Z"


_ts: Final = _Stamps()


def _plain(value: object, depth: int = 4) -> object:
    """Return `value` as something that JSON has, without ever raising."""
    kind = type(value)  # of what is common: to ask each class in turn costs ten times that
    if kind in _PLAIN:
        return value
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    if kind in _SEQUENCES and depth:
        return [_plain(item, depth - 1) for item in value]  # type: ignore[attr-defined]
    match value:
        case None | bool() | float():
            return value
        case Enum():
            return _plain(value.value, depth)
        case int():
            return value
        case str():
            return _text(value)
        case bytes() | bytearray() | memoryview():
            return _cut(value.hex())
        case datetime():
            return _stamp(value)
        case BaseException() | PurePath():
            return _text(str(value))
        case _ if depth == 0:
            return _type_name(value)
        case Mapping():
            return {str(_plain(key, 0)): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, depth - 1) for item in value]
        case set() | frozenset():
            return sorted((_plain(item, depth - 1) for item in value), key=str)
        case _:
            return _type_name(value)


def _text(text: str) -> str:
    if text.isascii() and len(text) <= MAX_TEXT:
        return text
    # Lone surrogates are the one thing a str may hold and UTF-8 may not.
    return _cut(text.encode("utf-8", "backslashreplace").decode())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def get_logger(**fields: object) -> Logger:
    """Return a logger; `fields` are on each of its lines."""
    return Logger(None, (), dict(fields))


def configure(
    role: str,
    *,
    clock: HasNow,
    stream: IO[str] | None = None,
    path: Path | None = None,
    human: bool | None = None,
    level: str = "info",
    id: str = "",
) -> None:
    """Say where this process logs to, from its first line to its last; a later call replaces.

    Args:
        role: The `role` of each line that binds no other.
        clock: Whose policy time `ts` is.
        stream: Where to write; standard error if neither this nor `path` is given.
        path: A file to append to, made 0600.
        human: Render for people; by default only where `stream` is a terminal.
        level: The lowest level that is written, one of `LEVELS`.
        id: The component's id as text, once it is known; see `identify`.

    Raises:
        StateError: The file cannot be opened.
        ValueError: There is no such level, or both a stream and a path were given.
    """
    set_level(level)
    if path is not None:
        if stream is not None:
            raise ValueError("a log goes to a stream or to a file")
        _OUTPUT.to_file(path)
    else:
        stream = stream if stream is not None else sys.stderr
        _OUTPUT.to_stream(stream)
    terminal = stream is not None and stream.isatty()
    _OUTPUT.role, _OUTPUT.id, _OUTPUT.clock = role, id, clock
    _OUTPUT.human, _OUTPUT.colour = terminal if human is None else human, terminal


def capture(records: list[dict[str, object]], *, clock: HasNow | None = None) -> None:
    """Append records to a list instead of writing them: for tests, at every level."""
    _OUTPUT.to_records(records)
    _OUTPUT.role = _OUTPUT.id = ""
    _OUTPUT.clock, _OUTPUT.human = clock, False
    _let(0)


def silence() -> None:
    """Write nothing from now on, as before the first `configure`."""
    with _OUTPUT._lock:
        _OUTPUT.close()
    _OUTPUT.role = _OUTPUT.id = ""
    _OUTPUT.clock = None
    _let(LEVELS["warning"])


def identify(id: str) -> None:
    """Say the component's id, which a daemon learns after its first log lines."""
    _OUTPUT.id = id


def set_level(level: str) -> None:
    """Change the lowest level that is written.

    Raises:
        ValueError: There is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}, not one of {', '.join(LEVELS)}")
    _let(LEVELS[level])


def _let(level: int) -> None:
    _OUTPUT.level = level
    Logger.debugging = level <= LEVELS["debug"]


def reopen() -> None:
    """Open the log file again, after it was moved away. Nothing to do for a stream.

    Raises:
        StateError: It cannot be opened; the old one stays in use.
    """
    if _OUTPUT.path is not None:
        _OUTPUT.to_file(_OUTPUT.path)


_COLOURS = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}


def render(record: Mapping[str, object], *, colour: bool) -> str:
    """Return a record, of this process or read from a file, as one line for people.

    Text that holds anything but visible ASCII and spaces is shown quoted and escaped.
    """
    level = str(record.get("level", ""))
    who = str(record.get("role", ""))
    if record.get("id"):
        who = f"{who}/{str(record['id'])[:8]}"
    head = f"{_shown(record.get('ts', ''))} {_shown(level):<7} {_shown(who):<20} "
    name = _shown(record.get("event", ""))
    rest = [
        f"{_shown(key)}={_shown(value)}"
        for key, value in record.items()
        if key not in ("ts", "level", "event", "role", "id", "traceback")
    ]
    line = head + " ".join([name, *rest])
    if colour and _COLOURS.get(level):
        line = f"{_COLOURS[level]}{line}\x1b[0m"
    trace = record.get("traceback")
    if isinstance(trace, str):
        # Line by line: each is escaped like any other text, only the line ends are ours.
        for part in trace.splitlines():
            line += "\n    " + (part if part.isascii() and part.isprintable() else ascii(part))
    return line


def _shown(value: object) -> str:
    if isinstance(value, str):
        plain = value.isascii() and value.isprintable()
        return value if plain and " " not in value and '"' not in value else ascii(value)
    return ascii(value) if isinstance(value, list | dict) else str(value)
