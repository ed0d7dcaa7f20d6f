"""Names that somebody could mistake for something else."""

from collections.abc import Mapping
from typing import Final

__all__ = ["NAMES", "TOO_LONG"]

NAMES: Final[Mapping[str, str]] = {
    "a path": "../../../../etc/passwd",
    "NUL": "a\0b",
    "a terminal's": "\x1b[2J\x1b]0;owned\x07",
    "right to left": "\u202egnol",
    "a newline": "a\nFATAL: everything is lost",
    "markup": "<script>alert(1)</script>'; DROP TABLE clients; --",
    "255 characters": "x" * 255,
    "the largest in bytes": "\N{PILE OF POO}" * 255,
}
"""All are names: text of at most 255 characters, and nothing else is made of them."""

TOO_LONG: Final = "x" * 5000
