import ast
import io
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime import events, logs
from agents.runtime.errors import StateError
from tests.support.logs import logged

ROOT = Path(__file__).parents[3]


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    logs.silence()


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.req("K3")
def test_a_line_is_one_json_object_with_the_common_fields_first() -> None:
    out = io.StringIO()
    logs.configure("client", clock=Noon(), stream=out, id="ab" * 16)
    log = logs.get_logger()
    log.bind(link="x1").info("link.opened", trace="0123", peer=b"\x01\xff")
    log.warning("other.event")
    first, second = lines(out.getvalue())
    assert list(first.items()) == [
        ("ts", "2026-03-01T12:00:00.000Z"),
        ("level", "info"),
        ("event", "link.opened"),
        ("role", "client"),
        ("id", "ab" * 16),
        ("link", "x1"),
        ("trace", "0123"),
        ("peer", "01ff"),
    ]
    assert second["level"] == "warning"
    assert "link" not in second


def test_levels_can_change_under_bound_loggers() -> None:
    out = io.StringIO()
    log = logs.get_logger().bind(link="x1")
    logs.configure("client", clock=Noon(), stream=out, level="warning")
    log.info("a.b")
    logs.set_level("debug")
    log.debug("c.d")
    logs.identify("cd" * 16)
    log.error("e.f")
    assert [(line["event"], line["id"]) for line in lines(out.getvalue())] == [
        ("c.d", ""),
        ("e.f", "cd" * 16),
    ]
    with pytest.raises(ValueError, match="level is 'loud'"):
        logs.set_level("loud")


def test_nothing_is_written_before_it_is_configured(capfd: pytest.CaptureFixture[str]) -> None:
    logs.get_logger().error("a.b")
    assert capfd.readouterr() == ("", "")


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("hub", clock=Noon())
    logs.get_logger().info("a.b")
    assert lines(capsys.readouterr().err)[0]["role"] == "hub"


class Colour(StrEnum):
    RED = "red"


class Key:
    def __repr__(self) -> str:
        return "-----BEGIN PRIVATE KEY-----"

    __str__ = __repr__


def test_values_become_plain() -> None:
    with logged() as records:
        logs.get_logger().info(
            "a.b",
            date=datetime(2026, 1, 1, tzinfo=UTC),
            error=ValueError("port in use"),
            path=Path("/etc/x"),
            enum=Colour.RED,
            serial=1 << 150,
            ids=(b"\x01", b"\x02"),
            roots=frozenset({b"\x04", b"\x03"}),
            rows={b"\x05": 1},
            none=None,
            flag=True,
        )
    record = records[0]
    del record["ts"], record["level"], record["event"], record["role"], record["id"]
    assert record == {
        "date": "2026-01-01T00:00:00.000Z",
        "error": "port in use",
        "path": "/etc/x",
        "enum": "red",
        "serial": 1 << 150,
        "ids": ["01", "02"],
        "roots": ["03", "04"],
        "rows": {"05": 1},
        "none": None,
        "flag": True,
    }


def test_an_object_is_written_as_its_type_only() -> None:
    out = io.StringIO()
    logs.configure("server", clock=Noon(), stream=out)
    logs.get_logger().info("a.b", key=Key(), keys=[Key()], deep={"a": {"b": {"c": {"d": [Key()]}}}})
    assert "PRIVATE" not in out.getvalue()
    assert lines(out.getvalue())[0]["keys"] == ["<Key>"]


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(value=JSON_LIKE, human=st.booleans())
def test_any_value_is_one_line_and_never_an_error(value: object, human: bool) -> None:
    out = io.StringIO()
    logs.configure("client", clock=Noon(), stream=out, human=human)
    logs.get_logger().info("a.b", value=value, surrogate="\ud800")
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    if human:
        assert text[:-1].isprintable()
        assert text.isascii()
    else:
        assert json.loads(text)["event"] == "a.b"


def test_long_text_is_cut() -> None:
    with logged() as records:
        logs.get_logger().info("a.b", text="x" * 10000, data=bytes(10000))
    assert len(str(records[0]["text"])) == logs.MAX_TEXT + 1
    assert len(str(records[0]["data"])) == logs.MAX_TEXT + 1


def test_a_file_is_appended_to_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "client.log"
    path.write_text("before\n")
    path.chmod(0o644)
    logs.configure("client", clock=Noon(), path=path)
    logs.get_logger().info("a.b")
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line)["event"] == "a.b"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "client.log"
    logs.configure("client", clock=Noon(), path=path)
    log = logs.get_logger()
    log.info("a.b")
    path.rename(tmp_path / "client.log.1")
    log.info("c.d")
    logs.reopen()
    log.info("e.f")
    assert lines((tmp_path / "client.log.1").read_text())[1]["event"] == "c.d"
    assert lines(path.read_text())[0]["event"] == "e.f"


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot open log file") as caught:
        logs.configure("client", clock=Noon(), path=tmp_path / "none" / "log")
    assert caught.value.hint
    with pytest.raises(ValueError, match="or to a file"):
        logs.configure("client", clock=Noon(), path=tmp_path / "log", stream=io.StringIO())


class Broken(io.StringIO):
    broken = True

    def write(self, text: str) -> int:
        if self.broken:
            raise OSError("no space left on device")
        return super().write(text)


def test_a_line_that_cannot_be_written_is_counted() -> None:
    out = Broken()
    logs.configure("client", clock=Noon(), stream=out)
    log = logs.get_logger()
    log.info("a.b")
    log.info("a.b")
    out.broken = False
    log.info("c.d")
    log.info("e.f")
    first, second = lines(out.getvalue())
    assert first["lost"] == 2
    assert "lost" not in second


def test_a_short_write_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    logs.configure("client", clock=Noon(), path=path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda _handle, _data: 0)
        logs.get_logger().info("a.b")
    logs.get_logger().info("c.d")
    assert lines(path.read_text())[0]["lost"] == 1


def test_an_exception_has_its_traceback() -> None:
    with logged() as records:
        try:
            raise KeyError("x")
        except KeyError:
            logs.get_logger().exception("a.b")
    assert records[0]["level"] == "error"
    assert "KeyError: 'x'" in str(records[0]["traceback"])
    assert "KeyError: 'x'" in logs.render(records[0], colour=False).splitlines()[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_for_people() -> None:
    out = Terminal()
    logs.configure("client", clock=Noon(), stream=out, id="abcdef0123456789" * 2)
    logs.get_logger().info("link.opened", peer="x", text="two words", clear="\x1b[2J")
    assert out.getvalue() == (
        "2026-03-01T12:00:00.000Z info    client/abcdef01      link.opened"
        " peer=x text='two words' clear='\\x1b[2J'\n"
    )
    logs.get_logger().error("link.lost")
    assert out.getvalue().endswith("link.lost\x1b[0m\n")


def test_people_may_be_served_anywhere_and_a_terminal_may_get_json() -> None:
    out, terminal = io.StringIO(), Terminal()
    logs.configure("client", clock=Noon(), stream=out, human=True)
    logs.get_logger().error("a.b")
    assert out.getvalue().startswith("2026-03-01T12:00:00.000Z error")
    assert "\x1b" not in out.getvalue()
    logs.configure("client", clock=Noon(), stream=terminal, human=False)
    logs.get_logger().error("a.b")
    assert json.loads(terminal.getvalue())["event"] == "a.b"


# The vocabulary: what the source emits is what `events` says.

METHODS = frozenset({"debug", "info", "warning", "error", "exception"})


class Call:
    """One call of a log method in the source."""

    def __init__(self, where: str, node: ast.Call) -> None:
        assert isinstance(node.func, ast.Attribute)
        self.where = f"{where}:{node.lineno}"
        most = 2 if node.func.attr == "exception" else 1  # it may be given the exception
        first = node.args[0] if 1 <= len(node.args) <= most else None
        value = first.value if isinstance(first, ast.Constant) else None
        self.event = value if isinstance(value, str) else None
        self.fields = {word.arg for word in node.keywords if word.arg is not None}
        """Those that are written out; a `**` hides some, and so cannot be checked."""


def scan(source: str, where: str) -> tuple[list[Call], list[Call]]:
    """Return the calls that log and those that bind, on a name that ends in `log`."""
    emitted, bound = [], []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
        if not name.endswith("log"):
            continue
        if node.func.attr in METHODS:
            emitted.append(Call(where, node))
        elif node.func.attr == "bind":
            bound.append(Call(where, node))
    return emitted, bound


def problems(
    emitted: list[Call], bound: list[Call], vocabulary: dict[str, tuple[str, ...]], known: set[str]
) -> list[str]:
    found = []
    for call in emitted:
        if call.event is None:
            found.append(f"{call.where}: the event is not one literal text")
        elif call.event not in vocabulary:
            found.append(f"{call.where}: {call.event} is not in EVENTS")
        else:
            unknown = call.fields - set(vocabulary[call.event])
            found += [f"{call.where}: {call.event} has no field {name}" for name in sorted(unknown)]
    for call in bound:
        found += [f"{call.where}: {name} is not in FIELDS" for name in sorted(call.fields - known)]
    silent = set(vocabulary) - {call.event for call in emitted}
    return [*found, *(f"{name} is emitted nowhere" for name in sorted(silent))]


def test_stamps_follow_a_clock_that_is_set() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    steps = (0, 0.9999, 1, 61.234, -0.001, -86_400, 0.9999)
    dates = iter(noon + timedelta(seconds=step) for step in steps)
    clock = mock.Mock(now=lambda: next(dates))
    records: list[dict[str, object]] = []
    logs.capture(records, clock=clock)
    for _ in steps:
        logs.get_logger().info("daemon.started")
    assert [record["ts"] for record in records] == [
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00.999Z",
        "2026-03-01T12:00:01.000Z",
        "2026-03-01T12:01:01.234Z",
        "2026-03-01T11:59:59.999Z",
        "2026-02-28T12:00:00.000Z",
        "2026-03-01T12:00:00.999Z",
    ]


@pytest.mark.req("K3")
def test_the_source_emits_what_the_vocabulary_says() -> None:
    emitted: list[Call] = []
    bound: list[Call] = []
    for path in sorted((ROOT / "agents").rglob("*.py")):
        calls, binds = scan(path.read_text(), str(path.relative_to(ROOT)))
        emitted += calls
        bound += binds
    vocabulary = {name: event.fields for name, event in events.EVENTS.items()}
    found = problems(emitted, bound, vocabulary, set(events.FIELDS))
    assert not found, "\n".join(["see agents/runtime/events.py:", *found])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("log.info('a.b', c=1)", []),
        ("self._log.warning('a.b')", []),
        ("log.info('a.b'); dialog.x('z')", []),
        ("log.info('a.b'); log.info('a.x')", ["x:1: a.x is not in EVENTS"]),
        ("log.error('a.b', c=1, d=2)", ["x:1: a.b has no field d"]),
        ("log.info('a.b')\nlog.info(name)", ["x:2: the event is not one literal text"]),
        ("log.info('a.b'); log.bind(c=1, e=2)", ["x:1: e is not in FIELDS"]),
        ("log.bind(c=1)", ["a.b is emitted nowhere"]),
    ],
)
def test_the_scan_finds_each_deviation(source: str, problem: list[str]) -> None:
    assert problems(*scan(source, "x"), {"a.b": ("c",)}, {"c"}) == problem


def test_the_vocabulary_is_consistent() -> None:
    fields = {name for event in events.EVENTS.values() for name in event.fields}
    assert fields - set(events.FIELDS) == set()
    common = {"ts", "level", "event", "role", "id", "lost", "traceback"}
    assert fields & common == set()
    assert common <= set(events.FIELDS)
    for name, event in events.EVENTS.items():
        assert all(part.replace("_", "").isalpha() for part in name.split("."))
        assert name.count(".") == 1
        assert event.doc.endswith(".")
    assert list(events.EVENTS) == sorted(events.EVENTS)
    some = list(events.FIELDS)[list(events.FIELDS).index("traceback") + 1 :]  # not of every line
    assert some == sorted(some)
    for event in events.EVENTS.values():
        assert list(event.fields) == sorted(event.fields)


def test_no_field_is_made_for_secrets() -> None:
    words = ("password", "secret", "private", "token", "credential")
    assert [name for name in events.FIELDS if any(word in name for word in words)] == []


def test_the_page_is_that_of_the_vocabulary() -> None:
    page = (ROOT / "docs" / "logging.md").read_text()
    assert page == events.render_page(), "run: python -m agents.runtime.events > docs/logging.md"
