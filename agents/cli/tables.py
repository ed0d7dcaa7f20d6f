"""Plain aligned tables: they can be read, cut and searched with the usual tools."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["Column", "date", "lines", "mark", "short", "span"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, the key in a row, and how a value is shown."""

    head: str
    key: str
    show: Callable[[Any], str] | None = None


def lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[str]:
    """Yield the head and each row, aligned; no cell holds what moves a cursor."""
    cells = [[column.head for column in columns]]
    cells += [[_cell(row.get(column.key), column) for column in columns] for row in rows]
    widths = [max(map(len, place)) for place in zip(*cells, strict=True)]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _cell(value: object, column: Column) -> str:
    if value is None or value == "":
        return "-"
    text = column.show(value) if column.show is not None else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def date(value: Any) -> str:  # noqa: ANN401 - whatever stands in a row
    """Show an ISO date, or seconds since 1970, to the second, in UTC."""
    try:
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return str(value)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment.year < 9999 else "never"


def short(value: Any) -> str:  # noqa: ANN401
    """Show the first 16 digits of a fingerprint or id: enough to find it again."""
    return str(value)[:16]


def mark(value: Any) -> str:  # noqa: ANN401
    """Show a truth value."""
    return "yes" if value else "no"


def span(value: Any) -> str:  # noqa: ANN401
    """Show seconds in the largest unit that fits."""
    for name, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value and value % seconds == 0:
            return f"{value // seconds} {name}"
    return f"{value} s"
