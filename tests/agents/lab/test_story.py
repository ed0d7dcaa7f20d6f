import io
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.lab.deployment import Deployment
from agents.lab.progress import Display, Observed
from agents.lab.scene import NotObservedError, Scene, Step, expect
from agents.lab.story import STEPS, tell
from agents.lab.time import Progress
from agents.runtime.errors import UnavailableError

DATE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_scene() -> Scene:
    """A scene of which only the time is looked at."""
    lab: Any = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 5.0), now=DATE)
    place: Any = None
    return Scene(cast("Deployment", lab), place, place)


def saying(result: str | Exception) -> Callable[[Scene], Awaitable[str]]:
    async def act(_scene: Scene) -> str:
        if isinstance(result, Exception):
            raise result
        return result

    return act


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_a_step_that_saw_it() -> None:
    out = io.StringIO()
    told = await tell(
        make_scene(),
        Display(out, json=False, monotonic=lambda: 0.0),
        (Step("a", "Is it?", saying("it is")),),
    )
    assert [one.ok for one in told] == [True]
    assert out.getvalue() == "Is it?\n  ok: it is  [0.0 s]\n"


@pytest.mark.parametrize(
    "error",
    [
        NotObservedError("no"),
        UnavailableError("no"),
        OSError("no"),
        KeyError("no"),
        TypeError("no"),
        TimeoutError("no"),
    ],
)
async def test_a_step_that_did_not_is_told_and_the_story_goes_on(error: Exception) -> None:
    out = io.StringIO()
    steps = (Step("a", "Is it?", saying(error)), Step("b", "And that?", saying("yes")))
    told = await tell(make_scene(), Display(out, json=False, monotonic=lambda: 0.0), steps)
    assert [one.ok for one in told] == [False, True]
    assert "NOT OBSERVED: " in out.getvalue()


async def test_without_a_vital_step_nothing_makes_sense() -> None:
    steps = (Step("a", "Is it?", saying(OSError("no")), vital=True), Step("b", "?", saying("yes")))
    display = Display(io.StringIO(), json=False, monotonic=lambda: 0.0)
    assert len(await tell(make_scene(), display, steps)) == 1


async def test_a_fault_of_the_lab_itself_is_not_told_as_an_observation() -> None:
    display = Display(io.StringIO(), json=False, monotonic=lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        await tell(make_scene(), display, (Step("a", "?", saying(ZeroDivisionError())),))


def test_expect() -> None:
    expect(True, "never said")
    with pytest.raises(NotObservedError, match="two roots"):
        expect(False, "two roots")


def test_every_step_has_a_name_of_its_own_and_asks_a_question() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all(step.question.endswith("?") for step in STEPS)


STEP = Step("week", "Does a week pass?", saying(""))


def test_as_json_one_object_a_step_and_a_summary() -> None:
    out = io.StringIO()
    display = Display(out, json=True, monotonic=lambda: 0.0)
    display.title("not for programs")
    display.begin(STEP)
    one = Observed(STEP, False, "client-03 \x1b[2J", 1.234, DATE)
    display.end(one)
    display.summary([one], 2.0)
    first, last = map(json.loads, out.getvalue().splitlines())
    assert first == {
        "step": "week",
        "question": "Does a week pass?",
        "observed": False,
        "detail": "client-03 \x1b[2J",
        "seconds": 1.23,
        "policy_time": "2026-03-01T12:00:00+00:00",
    }
    assert last == {"summary": {"observed": 0, "steps": 1, "seconds": 2.0}}


def test_the_table_says_what_was_not_observed() -> None:
    out = io.StringIO()
    display = Display(out, json=False, monotonic=lambda: 0.0)
    display.summary([Observed(STEP, True, "", 1, DATE), Observed(STEP, False, "", 1, DATE)], 2.0)
    assert [line.split()[1] for line in out.getvalue().splitlines()[2:4]] == ["yes", "NO"]
    assert out.getvalue().endswith("1 of 2 observed in 2 s\n")


def test_on_a_terminal_the_last_line_lives_and_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    now = [0.0]
    display = Display(out, json=False, monotonic=lambda: now[0])
    display.begin(STEP)
    for _ in range(1000):
        display.time(progress(holding=("client-01", "client-02", "hub", "server")))
    drawn = out.getvalue()
    assert drawn.count("\r") == 1  # thousands of legs, one picture
    now[0] = 0.2
    display.time(progress(holding=("client-01", "client-02", "hub", "server")))
    assert "at work: client-01, client-02, hub and 1 more" in out.getvalue()
    now[0] = 0.4
    display.time(progress(standing=("client-05",)))
    assert "waiting for: client-05" in out.getvalue()
    display.end(Observed(STEP, True, "seen", 1, DATE))
    assert out.getvalue().rpartition("\r\x1b[K")[2].startswith("Does a week pass?\n")


def progress(holding: tuple[str, ...] = (), standing: tuple[str, ...] = ()) -> Progress:
    return Progress(DATE, DATE + timedelta(hours=1), None, 300.0, holding, standing)
