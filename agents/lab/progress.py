"""How the lab tells its story: on a terminal, as plain lines, or as JSON, one object a step.

On a terminal the last line is alive: the step under way, its seconds, policy time and its rate,
and who is at work. Everywhere else a step is one line when it is over.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TextIO

from agents.lab.scene import Step
from agents.lab.time import Progress

__all__ = ["Display", "Observed"]

MARKS: Final = {True: "ok", False: "NOT OBSERVED"}
REDRAW: Final = 0.1
"""Seconds between two pictures of the live line."""
GREEN, RED, DIM, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Observed:
    """The answer to one step's question."""

    step: Step
    ok: bool
    detail: str
    seconds: float
    """Network time that it took."""
    at: datetime
    """Policy time when it was over."""


class Display:
    """Shows the story.

    Args:
        out: where results go.
        json: write objects instead of text.
        monotonic: reads network time.
    """

    def __init__(self, out: TextIO, *, json: bool, monotonic: Callable[[], float]) -> None:
        self._out = out
        self._json = json
        self._monotonic = monotonic
        self._live = out.isatty() and not json
        self._step: Step | None = None
        self._started = 0.0
        self._drawn = 0.0
        self._time: Progress | None = None

    def title(self, text: str) -> None:
        """Say something before, between or after the steps; not for programs."""
        if not self._json:
            self._wipe()
            print(text, file=self._out, flush=True)

    def begin(self, step: Step) -> None:
        """A step begins."""
        self._step, self._started = step, self._monotonic()
        self._draw()

    def time(self, progress: Progress) -> None:
        """Policy time moves; called thousands of times a second."""
        self._time = progress
        if self._live and self._monotonic() - self._drawn >= REDRAW:
            self._draw()

    def end(self, observed: Observed) -> None:
        """A step is over."""
        self._step = None
        self._wipe()
        if self._json:
            print(json.dumps(_object(observed)), file=self._out, flush=True)
            return
        mark = MARKS[observed.ok]
        if self._out.isatty():
            mark = f"{GREEN if observed.ok else RED}{mark}{PLAIN}"
        print(f"{observed.step.question}", file=self._out)
        print(
            f"  {mark}: {observed.detail}  [{observed.seconds:.1f} s]", file=self._out, flush=True
        )

    def summary(self, steps: list[Observed], seconds: float) -> None:
        """The table at the end."""
        good = sum(one.ok for one in steps)
        if self._json:
            total = {
                "summary": {"observed": good, "steps": len(steps), "seconds": round(seconds, 1)}
            }
            print(json.dumps(total), file=self._out, flush=True)
            return
        width = max((len(one.step.name) for one in steps), default=0)
        print(f"\n{'STEP':{width}}  {'OBSERVED':12}  {'SECONDS':>7}  POLICY TIME", file=self._out)
        for one in steps:
            print(
                f"{one.step.name:{width}}  {'yes' if one.ok else 'NO':12}  {one.seconds:7.1f}  "
                f"{one.at:%Y-%m-%d %H:%M}",
                file=self._out,
            )
        print(f"\n{good} of {len(steps)} observed in {seconds:.0f} s", file=self._out, flush=True)

    def _draw(self) -> None:
        self._drawn = self._monotonic()
        if not self._live or self._step is None:
            return
        line = f"… {self._step.question}  {self._drawn - self._started:.0f} s"
        if self._time is not None:
            line += f"  {self._time.now:%Y-%m-%d %H:%M:%S}"
            busy = self._time.standing or self._time.holding
            if busy:
                more = f" and {len(busy) - 3} more" if len(busy) > 3 else ""
                line += f"  {'waiting for' if self._time.standing else 'at work'}: "
                line += ", ".join(busy[:3]) + more
        width = shutil.get_terminal_size().columns - 1
        with suppress(OSError):
            self._out.write(f"\r\x1b[K{DIM}{line[:width]}{PLAIN}")
            self._out.flush()

    def _wipe(self) -> None:
        if self._live:
            self._out.write("\r\x1b[K")


def _object(observed: Observed) -> dict[str, object]:
    return {
        "step": observed.step.name,
        "question": observed.step.question,
        "observed": observed.ok,
        "detail": observed.detail,
        "seconds": round(observed.seconds, 2),
        "policy_time": observed.at.isoformat(),
    }
