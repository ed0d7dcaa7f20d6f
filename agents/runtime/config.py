"""A TOML file and the frozen dataclass that it becomes, checked as a whole.

    @dataclass(frozen=True, slots=True)
    class Config:
        '''Settings of a client.'''

        state: Path = option(REQUIRED, "State directory.", example="/var/lib/anchorline/client")
        port: int = option(14172, "Port to listen on.", minimum=1, maximum=65535)
        links: Links = table(Links, "Limits of links.")

    config = load(Path("/etc/anchorline/client.toml"), Config)

The dataclass is the only place where a default, a limit or an explanation of an option is
written; `render_sample` makes the commented file from it. All problems of a file are reported
at once, because a person who corrects one mistake a start has a bad morning.

Types of options: `str`, `int`, `float`, `bool`, `Path`, `HostPort`, a `StrEnum`, a list of one of
these (`list[str]` or `tuple[str, ...]`), any of these or None, and another dataclass: a table.
Of an option that may be None, the empty text is None: so each line of a sample that is shown
behind a `#` means the same without it.
"""

import dataclasses
import difflib
import json
import textwrap
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from agents.runtime.address import DEFAULT_PORT, HostPort
from agents.runtime.errors import ConfigError, reason_of

__all__ = [
    "DEFAULT_PORT",
    "MAX_CONFIG",
    "REQUIRED",
    "HostPort",
    "load",
    "option",
    "render_sample",
    "table",
]

MAX_CONFIG = 1024 * 1024
"""Bytes of a configuration file."""

T = TypeVar("T")

_Kind: TypeAlias = Any
"""What stands behind the colon of a field: a class, `list[str]`, `int | None`."""

REQUIRED: Final[Any] = MISSING
"""As a default: there is none, the file must have this option."""


@dataclass(frozen=True, slots=True)
class _Option:
    doc: str
    unit: str | None
    minimum: float | None
    maximum: float | None
    example: object
    check: Callable[[Any], str | None] | None


def option(
    default: Any,  # noqa: ANN401 - it has the type of the field
    doc: str,
    unit: str | None = None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    example: object = None,
    check: Callable[[Any], str | None] | None = None,
) -> Any:  # noqa: ANN401
    """Describe one option: the value of a dataclass field.

    Args:
        default: Its value where the file has none, or `REQUIRED`.
        doc: What it is for; becomes the comment in the sample.
        unit: Unit of a number, for example "seconds".
        minimum: Smallest number allowed.
        maximum: Largest number allowed.
        example: What the sample sets where there is no default, or says where there is one.
        check: Returns what is wrong with a value of the right type, or None.
    """
    metadata = {"option": _Option(doc, unit, minimum, maximum, example, check)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def table(cls: Callable[[], T], doc: str = "") -> T:
    """Describe a table: a field whose type is another dataclass, each option of it optional."""
    metadata = {"option": _Option(doc, None, None, None, None, None)}
    return dataclasses.field(default_factory=cls, metadata=metadata)


def load(path_or_text: Path | str, cls: type[T]) -> T:
    """Read a configuration.

    A relative path in a file counts from the folder of that file, in a text it stays as it is.

    Args:
        path_or_text: The file, or the TOML text itself.
        cls: The dataclass to make.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has problems: all of them.
    """
    if isinstance(path_or_text, str):
        return _build(path_or_text, cls, "configuration", None)
    return _build(_read(path_or_text), cls, str(path_or_text), path_or_text.absolute().parent)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise ConfigError([f"exceeds the limit of {MAX_CONFIG} bytes"], str(path))
        return data.decode()
    except FileNotFoundError as exc:
        hint = f'write one with "anchorline <role> config new {path}"'
        raise ConfigError(["the file does not exist"], str(path), hint) from exc
    except OSError as exc:
        raise ConfigError([f"cannot read the file: {reason_of(exc)}"], str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError([f"not UTF-8 at byte {exc.start}"], str(path)) from exc


def _build(text: str, cls: type[T], source: str, base: Path | None) -> T:
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        # Not only TOMLDecodeError: a number of 5,000 digits, and lists in lists in lists.
        problem = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise ConfigError([f"not TOML: {problem[:1].lower()}{problem[1:]}"], source) from exc
    problems: list[str] = []
    built = _table(found, cls, "", base, problems)
    if problems:
        raise ConfigError(problems, source)
    return typing.cast("T", built)


def _table(
    found: Mapping[str, object], cls: _Kind, prefix: str, base: Path | None, problems: list[str]
) -> object:
    """Build `cls` and append to `problems`; the result counts only if none was appended."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    problems += [_unknown(prefix, key, fields) for key in found if key not in fields]
    values: dict[str, object] = {}
    complete = True
    for name, field in fields.items():
        before = len(problems)
        if name in found:
            kind, described = hints[name], field.metadata.get("option")
            values[name] = _value(found[name], kind, described, prefix + name, base, problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            expected = _expected(hints[name], field.metadata.get("option"))
            problems.append(f"{prefix}{name}: missing, expected {expected}")
        complete = complete and len(problems) == before
    if not complete:
        return None
    try:
        return cls(**values)
    except ValueError as exc:  # what a dataclass says about its options together
        problems.append(f"{prefix.rstrip('.')}: {exc}" if prefix else str(exc))
        return None


def _unknown(prefix: str, key: str, fields: Mapping[str, object]) -> str:
    known = [name for name in fields if not name.startswith("_")]
    # Folded, so that Port and list-en are told as well.
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    if near:
        return f"{prefix}{key}: unknown, did you mean {near[0]}?"
    return f"{prefix}{key}: unknown, expected one of {', '.join(known)}"


def _value(
    got: object,
    kind: _Kind,
    described: _Option | None,
    key: str,
    base: Path | None,
    problems: list[str],
) -> object:
    if got == "" and type(None) in typing.get_args(kind):
        return None
    kind = _without_none(kind)
    if dataclasses.is_dataclass(kind) and kind is not HostPort:
        if not isinstance(got, dict):
            problems.append(f"{key}: got {_shown(got)}, expected a table [{key}]")
            return None
        return _table(got, kind, f"{key}.", base, problems)
    if _origin(kind) in (list, tuple):
        return _items(got, kind, described, key, base, problems)
    try:
        value = _scalar(got, kind, described, base)
    except ValueError as exc:
        more = f" ({exc})" if str(exc) else ""
        problems.append(f"{key}: got {_shown(got)}, expected {_expected(kind, described)}{more}")
        return None
    _check(value, described, key, got, problems)
    return value


def _items(
    got: object,
    kind: _Kind,
    described: _Option | None,
    key: str,
    base: Path | None,
    problems: list[str],
) -> object:
    if not isinstance(got, list):
        problems.append(f"{key}: got {_shown(got)}, expected {_expected(kind, described)}")
        return None
    one = typing.get_args(kind)[0]
    limits = dataclasses.replace(described, check=None) if described else None
    values = [
        _value(item, one, limits, f"{key}[{place}]", base, problems)
        for place, item in enumerate(got)
    ]
    made = values if _origin(kind) is list else tuple(values)
    if None not in values:
        _check(made, described, key, got, problems)
    return made


def _check(
    value: object, described: _Option | None, key: str, got: object, problems: list[str]
) -> None:
    wrong = described.check(value) if described and described.check else None
    if wrong:
        problems.append(f"{key}: got {_shown(got)}, {wrong}")


def _scalar(got: object, kind: _Kind, described: _Option | None, base: Path | None) -> object:
    """Return the value; a ValueError may say more than what was expected."""
    if kind is bool or kind is str:
        if type(got) is not kind:
            raise ValueError
        return got
    if kind in (int, float):
        # A bool is an int to Python and to nobody else.
        if type(got) is not int and not (kind is float and type(got) is float):
            raise ValueError
        try:
            number = kind(got)
        except OverflowError as exc:
            raise ValueError("beyond what a float can hold") from exc
        low = described.minimum if described else None
        high = described.maximum if described else None
        # Written so that nan fails as well.
        if not ((low is None or number >= low) and (high is None or number <= high)):
            raise ValueError
        return number
    if not isinstance(got, str):
        raise ValueError
    if kind is Path:
        if not got or "\0" in got:
            raise ValueError
        return base / got if base is not None else Path(got)
    if kind is HostPort:
        return HostPort.parse(got)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if got not in set(kind):
            raise ValueError
        return kind(got)
    raise TypeError(f"an option cannot be of type {kind!r}")


def _origin(kind: _Kind) -> object:
    return typing.get_origin(kind)


def _without_none(kind: _Kind) -> _Kind:
    if _origin(kind) in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(kind) if one is not type(None)]
        if len(others) != 1:
            raise TypeError(f"an option cannot be of type {kind!r}")
        return others[0]
    return kind


_NAMES = {
    bool: ("true or false", "values true or false"),
    str: ("a text", "texts"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    Path: ("a path", "paths"),
    HostPort: ('an address "host:port"', 'addresses "host:port"'),
}


def _expected(kind: _Kind, described: _Option | None) -> str:
    kind = _without_none(kind)
    many = _origin(kind) in (list, tuple)
    if many:
        kind = typing.get_args(kind)[0]
    if kind in _NAMES:
        text = _NAMES[kind][many]
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        text = "one of " + ", ".join(f'"{item}"' for item in kind)
    else:
        text = "a table"
    text += _range(described)
    return f"a list of {text.removeprefix('one of ')}" if many else text


def _range(described: _Option | None) -> str:
    if described is None:
        return ""
    unit = f" {described.unit}" if described.unit else ""
    low, high = described.minimum, described.maximum
    if low is not None and high is not None:
        return f" from {low} to {high}{unit}"
    if low is not None:
        return f" of at least {low}{unit}"
    if high is not None:
        return f" of at most {high}{unit}"
    return f" ({described.unit})" if described.unit else ""


def _shown(got: object) -> str:
    if isinstance(got, str):
        return _cut(got)
    if isinstance(got, bool):
        return "true" if got else "false"
    if isinstance(got, dict):
        return "a table"
    if isinstance(got, list):
        return f"a list of {len(got)}"
    if isinstance(got, int) and got.bit_length() > 128:
        return f"a number of {got.bit_length()} bits"  # Python refuses to write a huge one
    return str(got)[:40]


def _cut(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def render_sample(cls: type[Any], values: Mapping[str, object] | None = None) -> str:
    """Return a commented file that `load` accepts as it is.

    Each option stands there with what it is for. A default is shown behind a `#`, so that a
    later version may have a better one; an option without default is set to its example. Where
    the default says little (none, an empty list), the comment has the example.

    Args:
        cls: The dataclass of the configuration.
        values: Options to set, by name ("port", "links.idle") instead of showing the default.
    """
    values = values or {}
    lines = _comment(cls.__doc__ or "")
    unused = set(values)
    _sample(cls, "", lines, values, unused)
    if unused:
        raise ValueError(f"no such options: {', '.join(sorted(unused))}")
    return "\n".join(lines).rstrip("\n") + "\n"


def _sample(
    cls: _Kind, prefix: str, lines: list[str], values: Mapping[str, object], unused: set[str]
) -> None:
    hints = typing.get_type_hints(cls)
    tables = []
    for field in dataclasses.fields(cls):
        kind = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind) and kind is not HostPort:
            tables.append((field, kind))
            continue
        key = prefix + field.name
        described: _Option | None = field.metadata.get("option")
        default = field.default_factory() if callable(field.default_factory) else field.default
        example = described.example if described and default is not MISSING else None
        lines += ["", *_comment(_sample_doc(kind, described, example))]
        if key in values:
            unused.discard(key)
            lines.append(f"{field.name} = {_toml(values[key])}")
        elif default is MISSING:
            example = described.example if described else None
            lines.append(f"{field.name} = {_toml(example)}")
        else:
            lines.append(f"#{field.name} = {_toml('' if default is None else default)}")
    for field, kind in tables:
        described = field.metadata.get("option")
        lines += ["", *_comment(described.doc if described else kind.__doc__ or "")]
        lines.append(f"[{prefix}{field.name}]")
        _sample(kind, f"{prefix}{field.name}.", lines, values, unused)


def _sample_doc(kind: _Kind, described: _Option | None, example: object) -> str:
    doc = described.doc if described else ""
    expected = _expected(kind, described)
    if example is not None:
        expected += f", such as {_toml(example)}"
    return f"{doc} ({expected[0].upper()}{expected[1:]}.)".strip()


def _comment(doc: str) -> list[str]:
    paragraphs = textwrap.dedent(doc).strip().split("\n\n")
    lines: list[str] = []
    for paragraph in paragraphs:
        lines += [*textwrap.wrap(" ".join(paragraph.split()), 90), ""]
    return [f"# {line}".rstrip() for line in lines[:-1]]


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str() | Path() | HostPort():
            # A JSON string without surrogates is a TOML basic string.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case Sequence():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            raise TypeError(f"a sample cannot show {type(value).__name__}")
