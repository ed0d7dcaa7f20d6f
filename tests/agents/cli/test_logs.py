import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.logs import Line, Query, Tail, merge, parse
from tests.agents.cli.programs import call

PROGRAM = [sys.executable, "-m", "agents.cli.main"]


def line(ts: int, event: str = "a.b", **fields: object) -> str:
    record = {"ts": f"2026-03-01T09:00:{ts:02}.000Z", "level": "info", "event": event}
    return json.dumps({**record, "role": "client", "id": "ab" * 16, **fields})


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{one}\n" for one in lines), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three components; one trace passes client, zone server and server."""
    write(
        tmp_path / "client-07.log",
        line(1, "request.sent", trace="aa01", id="07" * 16),
        line(5, "link.closed", trace="bb02", id="07" * 16),
    )
    write(
        tmp_path / "server.log",
        line(3, "request.answered", trace="aa01", role="server", peer="client/" + "07" * 16),
        line(4, "link.refused", role="server", peer="66" * 16, level="warning"),
    )
    (tmp_path / "more").mkdir()
    write(
        tmp_path / "more" / "zone-server.log",
        line(2, "request.relayed", trace="aa01", role="zone-server"),
    )
    write(tmp_path / "notes.txt", "no log")
    return tmp_path


def test_a_trace_reads_through_every_component_in_the_order_of_time(folder: Path) -> None:
    ended = call("logs", "--trace", "aa01", str(folder))
    assert (ended.code, ended.err) == (0, "")
    assert [one.split() for one in ended.out.splitlines()] == [
        [source, f"2026-03-01T09:00:0{second}.000Z", "info", who, event, "trace=aa01", *more]
        for source, second, who, event, more in (
            ("client-07", 1, "client/07070707", "request.sent", []),
            ("zone-server", 2, "zone-server/abababab", "request.relayed", []),
            ("server", 3, "server/abababab", "request.answered", [f"peer=client/{'07' * 16}"]),
        )
    ]


def test_columns_are_aligned(folder: Path) -> None:
    lines = call("logs", str(folder)).out.splitlines()
    assert len(lines) == 5
    assert len({one.index("2026-03-01") for one in lines}) == 1
    places = {one.index("request.") for one in lines if "request." in one}
    assert len(places) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--event", "link.refused"], ["link.refused"]),
        (["--event", "link"], ["link.refused", "link.closed"]),
        (["--event", "*.closed"], ["link.closed"]),
        (["--event", "link.refused", "--event", "link.closed"], ["link.refused", "link.closed"]),
        (["--client", "07" * 16], ["request.sent", "request.answered", "link.closed"]),
        (["--client", "0707"], ["request.sent", "request.answered", "link.closed"]),
        (["--client", "client-07"], ["request.sent", "link.closed"]),
        (["--trace", "AA"], ["request.sent", "request.relayed", "request.answered"]),
        (["--trace", "aa01", "--client", "client-07"], ["request.sent"]),
        (["--trace", "ffff"], []),
    ],
)
def test_what_was_asked_for(folder: Path, words: list[str], expected: list[str]) -> None:
    ended = call("logs", *words, str(folder))
    assert ended.code == 0
    assert [one.split()[4] for one in ended.out.splitlines()] == expected


def test_json_is_one_object_a_line_with_its_source(folder: Path) -> None:
    ended = call("logs", "--json", "--event", "link", str(folder))
    rows = [json.loads(one) for one in ended.out.splitlines()]
    assert [(row["source"], row["event"]) for row in rows] == [
        ("server", "link.refused"),
        ("client-07", "link.closed"),
    ]


def test_one_file_has_no_column_of_names(folder: Path) -> None:
    out = call("logs", str(folder / "server.log")).out
    assert out.startswith("2026-03-01T09:00:03.000Z")


def test_colour_is_for_terminals(folder: Path) -> None:
    assert "\x1b" not in call("logs", str(folder)).out
    assert "\x1b[33m" in call("logs", str(folder), colour=True).out


HOSTILE = (
    '{"ts": "\\u001b[2J", "event": "a.b", "level": "\\u001b[2J", "\\u001b[2J": "\\u001b[2J"}',
    '{"ts": 5, "event": ["\\u001b[2J"], "role": {"\\u001b[2J": 1}}',
    "\x1b[2J\x07 plain text with a cursor in it",
    "[1, 2]",
    "[" * 100_000,
    "\xa0\u202e",
    '{"cut',
)


def test_a_hostile_line_moves_no_cursor_and_stops_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "x.log", line(1), *HOSTILE, line(9, "last.one"))
    ended = call("logs", str(file))
    assert ended.code == 0
    assert "last.one" in ended.out
    assert ended.out.replace("\n", "").isprintable()
    assert "plain text with a cursor" in ended.out
    assert call("logs", "--json", str(file)).code == 0


def test_lines_that_are_no_json_are_shown_only_when_nothing_was_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "x.log", line(1, trace="aa"), "Traceback (most recent call last):")
    assert "Traceback" in call("logs", str(file)).out
    assert "Traceback" not in call("logs", "--trace", "aa", str(file)).out


def test_a_line_without_time_stays_behind_the_one_before_it() -> None:
    first = [parse(line(5).encode(), source="a", before="")]
    first.append(parse(b"Traceback", source="a", before=first[0].ts))
    second = [parse(line(n).encode(), source="b", before="") for n in (4, 6)]
    assert [(one.source, one.record is None) for one in merge([first, second])] == [
        ("b", False),
        ("a", False),
        ("a", True),
        ("b", False),
    ]


def test_a_clock_that_was_set_back_does_not_reorder_a_file() -> None:
    first = parse(line(9).encode(), source="a", before="")
    second = parse(line(1).encode(), source="a", before=first.ts)
    assert second.ts == first.ts


def test_a_line_matches_nothing_that_only_looks_like_it() -> None:
    found = parse(line(1, trace="aa", role="client").encode(), source="x", before="")
    assert not Query(client="client").matches(found)  # the role is no name
    assert not Query(client="aa").matches(found)  # nor is a trace
    assert Query(client="abab").matches(found)


@pytest.mark.parametrize("words", [["missing.log"], ["empty"], ["."]])
def test_nothing_to_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    ended = call("logs", *words)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("anchorline: error: ")


def test_a_folder_that_is_missing_says_where_logs_are(tmp_path: Path) -> None:
    assert "journalctl" in call("logs", str(tmp_path / "missing")).err


@pytest.mark.parametrize("name", ["link.nonsense", "lin", ""])
def test_an_event_that_there_is_not_is_a_wrong_command(folder: Path, name: str) -> None:
    ended = call("logs", "--event", name, str(folder))
    assert (ended.code, ended.out) == (2, "")
    assert f"no event is called {name!r}" in ended.err


def test_nothing_found_is_said(folder: Path) -> None:
    ended = call("logs", "--trace", "zzz", str(folder))
    assert (ended.code, ended.out, ended.err) == (0, "", "no line is about that\n")


@pytest.mark.sockets
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_lines_are_read_from_a_pipe(name: str) -> None:
    said = "".join(line(n, trace=trace) + "\n" for n, trace in enumerate(["ab", "cd"]))
    ended = subprocess.run(
        [*PROGRAM, "logs", "--trace", "ab", name],
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1


# --- following


@pytest.fixture
def following() -> Iterator[Callable[[Path], Tail]]:
    tails: list[Tail] = []

    def follow(path: Path) -> Tail:
        tails.append(Tail(path))
        return tails[-1]

    yield follow
    for tail in tails:
        tail.close()


def test_a_tail_reads_on_and_waits_for_the_end_of_a_line(
    following: Callable[[Path], Tail], tmp_path: Path
) -> None:
    path = write(tmp_path / "x.log", line(1))
    tail = following(path)
    assert [one.ts[-7:-5] for one in tail.lines()] == ["01"]
    assert list(tail.lines()) == []
    half = line(2)
    with path.open("a") as file:
        file.write(half[:20])
        file.flush()
        assert list(tail.lines()) == []
        file.write(half[20:] + "\n" + line(3) + "\n")
    assert [one.ts[-7:-5] for one in tail.lines()] == ["02", "03"]


@pytest.mark.parametrize("how", ["moved away", "cut"])
def test_a_tail_follows_a_file_that_is_replaced(
    following: Callable[[Path], Tail], tmp_path: Path, how: str
) -> None:
    path = write(tmp_path / "x.log", line(1), line(2))
    tail = following(path)
    assert len(list(tail.lines())) == 2
    if how == "moved away":
        with path.open("a") as file:
            file.write(line(3) + "\n")  # written just before it was moved
        path.rename(tmp_path / "x.log.1")
        assert [one.ts[-7:-5] for one in tail.lines()] == ["03"]
    write(path, line(4))
    assert [one.ts[-7:-5] for one in tail.lines()] == ["04"]


def test_a_line_without_end_is_read_of_a_file_that_does_not_grow(
    following: Callable[[Path], Tail], tmp_path: Path
) -> None:
    path = tmp_path / "x.log"
    path.write_text(line(1))
    tail = following(path)
    assert list(tail.lines()) == []
    assert len(list(tail.last())) == 1
    assert len(call("logs", str(path)).out.splitlines()) == 1


@given(st.lists(st.text(st.characters(exclude_characters="\n\r")), max_size=8), st.data())
def test_any_split_of_a_growing_file_gives_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("split") / "x.log"
    whole = "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    found: list[Line] = []
    tail = Tail(path)
    path.touch()
    with path.open("ab") as file:
        for start, end in pairwise([0, *cuts, len(whole)]):
            file.write(whole[start:end])
            file.flush()
            found += tail.lines()
    tail.close()
    assert [one.text for one in found] == [
        line.decode("utf-8", "backslashreplace") for line in whole.split(b"\n")[:-1]
    ]


@given(st.lists(st.binary(max_size=60) | st.sampled_from([h.encode() for h in HOSTILE])))
def test_any_bytes_are_rendered_as_what_prints(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.log"
    path.write_bytes(b"\n".join(lines))
    ended = call("logs", str(path))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.replace("\n", "").isprintable()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started can be interrupted, also where these tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.sockets
@pytest.mark.usefixtures("interruptible")
async def test_follow_shows_what_is_added_until_it_is_interrupted(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("logs", "-f", "--event", "link", str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        first = [await process.stdout.readline() for _ in range(2)]
        assert b"link.refused" in first[0]
        with (folder / "server.log").open("a") as file:
            file.write(line(7, "link.opened", role="server") + "\n" + line(8) + "\n")
        assert b"link.opened" in await process.stdout.readline()
        write(folder / "newcomer.log", line(9, "link.opened", role="hub"))
        assert b"newcomer" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, b"Traceback" in err) == (130, b"", False)


@pytest.mark.sockets
def test_a_reader_that_has_seen_enough_is_told_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "x.log", *[line(n % 60) for n in range(20_000)])
    read, wrote = os.pipe()
    process = subprocess.Popen([*PROGRAM, "logs", str(file)], stdout=wrote, stderr=subprocess.PIPE)
    os.close(wrote)
    assert os.read(read, 10)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, b"")
