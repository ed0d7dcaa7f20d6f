"""Compare docs/requirements.md with the tests that claim to prove its rows.

A row is `| id | behaviour | state |` with state `open`, `done`, or `part: what is missing`. A test
names the rows it proves with `@pytest.mark.req("B2", ...)`, in literals, so that nothing has to be
imported to read them. Wrong is:

1. a row of another form, an id that stands twice, or no row at all;
2. a test that names an id that has no row, or names one in another way than as a literal;
3. a row that is `done`, or done in part, and has no test.

Run as `python -m tools.requirements`; prints what is wrong and exits with 1, or prints the
rows that are open or done in part.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE: Final = re.compile(r"(?P<state>open|done)|(?P<part>part): \S.*")
WORDS: Final = {"done": "done", "part": "done in part"}
ID: Final = re.compile(r"[A-Z]\d+")


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour that the product promises."""

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A place in the tests that says it proves a row."""

    id: str | None
    """The row's id; None where it is not written as a literal."""
    place: str
    """`file:line`, for people."""


def parse_rows(text: str) -> tuple[list[Row], list[str]]:
    """Read the rows of the table, and the problems found on the way."""
    rows: list[Row] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "id" or set(cells[0]) <= {"-", ":"}:
            continue
        state = STATE.fullmatch(cells[2]) if len(cells) == 3 else None
        if state is None or not ID.fullmatch(cells[0]) or not cells[1]:
            problems.append(
                f"line {number}: expected `| id | behaviour | open or done or part: ... |`: {line}"
            )
            continue
        if cells[0] in seen:
            problems.append(f"line {number}: {cells[0]} stands twice")
            continue
        seen.add(cells[0])
        rows.append(Row(cells[0], state["state"] or state["part"]))
    if not rows:
        problems.append("no row found")
    return rows, problems


def claims_in(source: str, name: str) -> Iterator[Claim]:
    """Yield each id given to `pytest.mark.req` in the source of one test file."""
    for node in ast.walk(ast.parse(source, filename=name)):
        if not isinstance(node, ast.Call) or not _is_req(node.func):
            continue
        place = f"{name}:{node.lineno}"
        if not node.args or node.keywords:
            yield Claim(None, place)
        for argument in node.args:
            literal = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            yield Claim(ast.literal_eval(argument) if literal else None, place)


def _is_req(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "req"
        and isinstance(function.value, ast.Attribute)
        and function.value.attr == "mark"
    )


def compare(rows: Iterable[Row], claims: Iterable[Claim]) -> list[str]:
    """Return what rows and claims disagree about; nothing when all is well."""
    known = {row.id: row for row in rows}
    proven: set[str] = set()
    problems: list[str] = []
    for claim in claims:
        if claim.id is None:
            problems.append(f"{claim.place}: pytest.mark.req takes ids as literals")
        elif claim.id not in known:
            problems.append(f"{claim.place}: no row {claim.id} in docs/requirements.md")
        else:
            proven.add(claim.id)
    problems += [
        f"{row.id} is {WORDS[row.state]}, but no test names it"
        for row in known.values()
        if row.state != "open" and row.id not in proven
    ]
    return problems


def main(root: Path = Path()) -> int:
    """Check the repository at `root`; return the exit code."""
    rows, problems = parse_rows((root / "docs/requirements.md").read_text(encoding="utf-8"))
    claims = [
        claim
        for path in sorted((root / "tests").rglob("*.py"))
        for claim in claims_in(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
    ]
    problems += compare(rows, claims)
    for problem in problems:
        print(f"requirements: {problem}", file=sys.stderr)
    if problems:
        return 1
    ids = {state: [row.id for row in rows if row.state == state] for state in ("part", "open")}
    done = len(rows) - sum(map(len, ids.values()))
    part = f", {len(ids['part'])} in part: {' '.join(ids['part'])}" if ids["part"] else ""
    print(f"requirements: {done} done{part}, {len(ids['open'])} open: {' '.join(ids['open'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
