"""How coverage is shown: who has followed to a root, counted and by name."""

from collections.abc import Mapping
from typing import Any

from agents.cli.tables import Column, date, short
from agents.cli.terminal import Terminal, plain

__all__ = ["ROWS", "show_coverage", "summary"]

STATES = ("moved", "moving", "offline")

ROWS = (
    Column("ROLE", "role"),
    Column("HOST", "host"),
    Column("ID", "id", short),
    Column("STATE", "state"),
    Column("LAST SEEN", "last_seen", date),
    Column("WHY", "why"),
)


def show_coverage(
    terminal: Terminal, coverage: Mapping[str, Any], *, every: bool = True, talk: bool = False
) -> None:
    """Show the counts of each role, and the components by name.

    Args:
        terminal: Where.
        coverage: As the API gives it.
        every: Those that have moved as well.
        talk: As talk, not as the result.
    """
    write = terminal.say if talk else terminal.show
    write(f"coverage of {plain(coverage['root'])}")
    counts = [{"role": role, **count} for role, count in coverage["counts"].items()]
    columns = [Column("ROLE", "role"), *(Column(state.upper(), state, _number) for state in STATES)]
    complete = [{state: row.get(state, 0) for state in STATES} | row for row in counts]
    if complete:
        terminal.table(complete, columns, empty="", talk=talk)
    rows = coverage["rows"] if every else coverage["behind"]
    if rows:
        write("")
        terminal.table(rows, ROWS, empty="", talk=talk)


def summary(coverage: Mapping[str, Any]) -> str:
    """Say in one line whether somebody is behind."""
    behind = coverage["behind"]
    if not coverage["counts"]:
        return "no component is known yet"
    if not behind:
        return "everybody has moved"
    names = ", ".join(
        f"{row['role']} {plain(row.get('host') or short(row['id']))}" for row in behind[:5]
    )
    more = f" and {len(behind) - 5} more" if len(behind) > 5 else ""
    return f"{len(behind)} not moved yet: {names}{more}"


def _number(value: int) -> str:
    return str(value)
