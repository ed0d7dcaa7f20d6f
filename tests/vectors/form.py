"""The text form of the vectors.

    # a comment
    name: value
    name: value
                        an empty line ends a case
    name: value

Values are hexadecimal bytes, decimal numbers or words. A name can stand several times in a
case; the order of its values counts.
"""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["Case", "dump", "load"]

Case = list[tuple[str, str]]


def dump(comment: str, cases: Iterable[Case]) -> str:
    """Write cases."""
    header = "".join(f"# {line}".rstrip() + "\n" for line in comment.strip().splitlines())
    blocks = ("".join(f"{name}: {value}\n" for name, value in case) for case in cases)
    return "\n".join([header, *blocks])


def load(path: Path) -> list[Case]:
    """Read cases."""
    cases: list[Case] = [[]]
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            continue
        if not line:
            cases.append([])
            continue
        name, _, value = line.partition(": ")
        cases[-1].append((name, value))
    return [case for case in cases if case]


def all_of(case: Case, name: str) -> list[str]:
    """The values of a name, in order."""
    return [value for key, value in case if key == name]


def one_of(case: Case, name: str) -> str:
    """The only value of a name."""
    (value,) = all_of(case, name)
    return value
