"""From samples to a verdict, and from verdicts to a table and a file. No measuring here.

A row compares two sides that were measured in turn, round by round, on one machine: the machine
drifts, a ratio of neighbours in time does not. So the ratio is taken in each round, and

    ratio    the median over the rounds
    spread   the middle half of them: from the first to the third quartile
    holds    true where the whole spread meets the target, false where the whole spread misses
             it, and "unsure" where the target lies inside: then nothing was shown either way

One round that something else on the machine has spoiled moves neither. A row without another
side is judged by its values in the same way.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = [
    "Holds",
    "Row",
    "Samples",
    "Target",
    "as_json",
    "exit_code",
    "judge",
    "quartiles",
    "summarise",
    "table",
]


class Holds(Enum):
    """What a row shows."""

    YES = True
    NO = False
    UNSURE = "unsure"
    RAN = None
    """It was run small, and is not judged."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach: a bound of its ratio, or of its value if it has no other side."""

    bound: float
    at_most: bool
    """Whether less is better."""
    stretch: float | None = None
    """What it would like to reach; decides nothing."""

    def met_by(self, figure: float) -> bool:
        """Whether a figure reaches the bound."""
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        aim = "" if self.stretch is None else f" ({self.stretch:g})"
        return f"{sign} {self.bound:g}{aim}"


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured, a figure a round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...] | None = None
    """The other side's, of the same rounds; None where there is none."""

    def __post_init__(self) -> None:
        if not self.ours or (self.theirs is not None and len(self.theirs) != len(self.ours)):
            raise ValueError(f"{len(self.ours)} rounds of ours, {self.theirs} of theirs")
        if not all(math.isfinite(one) and one > 0 for one in (*self.ours, *(self.theirs or ()))):
            raise ValueError(f"a figure that cannot be: {self}")

    def __add__(self, more: "Samples") -> "Samples":
        if (self.theirs is None) != (more.theirs is None):
            raise ValueError("samples with and without another side")
        theirs = None
        if self.theirs is not None and more.theirs is not None:
            theirs = self.theirs + more.theirs
        return Samples(self.ours + more.ours, theirs)

    @property
    def judged(self) -> tuple[float, ...]:
        """The figures that a target is about: ratios, or values where there is no other side."""
        if self.theirs is None:
            return self.ours
        return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report."""

    name: str
    value: float
    """Ours, the median."""
    unit: str
    against: str | None
    """The other side and its median, in the same unit."""
    ratio: float | None
    """Ours by theirs, the median of the rounds."""
    spread: tuple[float, float]
    """The middle half of the ratios, or of the values where there is no other side."""
    target: Target
    holds: Holds

    def as_json(self) -> Mapping[str, object]:
        """The row as `build/bench.json` has it."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "against": self.against,
            "ratio": None if self.ratio is None else _rounded(self.ratio),
            "spread": [_rounded(end) for end in self.spread],
            "target": str(self.target),
            "holds": self.holds.value,
        }


def quartiles(figures: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile; of one figure, twice that figure."""
    if len(figures) == 1:
        return figures[0], figures[0]
    first, _, third = statistics.quantiles(figures, n=4, method="inclusive")
    return first, third


def judge(spread: tuple[float, float], target: Target) -> Holds:
    """What a spread says about a target."""
    met = {target.met_by(end) for end in spread}
    if len(met) == 2:
        return Holds.UNSURE
    return Holds(met.pop())


def summarise(
    name: str,
    unit: str,
    samples: Samples,
    target: Target,
    *,
    against: str | None = None,
    judged: bool = True,
) -> Row:
    """Make a row of what was measured.

    Args:
        name: Which row.
        unit: Of its value, and of the other side's.
        samples: What was measured.
        target: What it must reach.
        against: Who the other side is.
        judged: False for a small run, which shows only that the row can be measured.
    """
    spread = quartiles(samples.judged)
    theirs = None if samples.theirs is None else statistics.median(samples.theirs)
    return Row(
        name=name,
        value=statistics.median(samples.ours),
        unit=unit,
        against=against if theirs is None else f"{against}: {_text(theirs)}",
        ratio=None if theirs is None else statistics.median(samples.judged),
        spread=spread,
        target=target,
        holds=judge(spread, target) if judged else Holds.RAN,
    )


def exit_code(rows: Sequence[Row]) -> int:
    """1 if a row does not hold; what is unsure, or was not judged, is no reason."""
    return int(any(row.holds is Holds.NO for row in rows))


WORDS: Final[Mapping[Holds, str]] = {
    Holds.YES: "holds",
    Holds.NO: "NO",
    Holds.UNSURE: "unsure",
    Holds.RAN: "ran",
}
HEADINGS: Final = ("row", "value", "against", "ratio", "spread", "target", "")


def table(rows: Sequence[Row]) -> str:
    """The rows for people, in columns."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def as_json(rows: Sequence[Row], **about: object) -> str:
    """The content of `build/bench.json`.

    Args:
        rows: The rows.
        about: What else a reader of the figures should know.
    """
    return json.dumps({**about, "rows": [row.as_json() for row in rows]}, indent=2) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{_text(row.value)} {row.unit}",
        row.against or "",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        f"{_text(row.spread[0])} .. {_text(row.spread[1])}",
        str(row.target),
        WORDS[row.holds],
    )


def _text(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def _rounded(figure: float) -> float:
    """Four significant digits: more were noise."""
    return float(f"{figure:.4g}")
