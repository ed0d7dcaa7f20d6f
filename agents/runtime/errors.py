"""What can go wrong outside the program, cut by what the caller does next.

    ConfigError        the operator must change the configuration; all problems at once
    UnavailableError   try again later; `retry_after` says when, if the other side said so
    StateError         the state directory cannot be used; refuse to start, change nothing
      MissingError     there is no such file; the caller may know why, and make one
      DamagedError     there is one and it is not what was written: never make a new one
    UnwritableError    both: a full or read-only disk refuses a start, and at work it is tried
                       again; what was kept before is kept still

An error carries values. `hint` is what the program can tell the operator to do about it; it is
printed by the edge (`lifecycle.report`) under the error itself.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

__all__ = [
    "AgentError",
    "ConfigError",
    "DamagedError",
    "Exit",
    "MissingError",
    "StateError",
    "UnavailableError",
    "UnwritableError",
    "reason_of",
]


class Exit(IntEnum):
    """What a process of ours says to whoever started it."""

    OK = 0
    ERROR = 1
    """It ran, or tried to, and failed."""
    USAGE = 2
    """The command line or the configuration is wrong; a restart does not help."""
    REFUSED = 3
    """It refused to start: what it found could be somebody else's, in use, or damaged."""


def reason_of(error: OSError) -> str:
    """Return what the system says went wrong, in a few words, lower case; never empty."""
    return (error.strerror or str(error) or type(error).__name__).lower()


class AgentError(Exception):
    """Something outside the program failed, and the text says what.

    Args:
        text: What happened, lower case, with values.
        hint: What to do about it; empty when there is nothing certain to say.
    """

    exit_code: ClassVar[Exit] = Exit.ERROR

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class ConfigError(AgentError):
    """The configuration is refused.

    Args:
        problems: Every problem found, one text each, never empty.
        source: The file, or another name of where the text came from.
        hint: What to do about it.
    """

    exit_code = Exit.USAGE

    def __init__(self, problems: Sequence[str], source: str = "", hint: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        count = len(self.problems)
        where = f" in {source}" if source else ""
        head = f"{count} problem{'s' if count != 1 else ''}{where}"
        super().__init__("\n  ".join([head, *self.problems]), hint)


class UnavailableError(AgentError):
    """The other side cannot answer now: a closed link, a deadline, an overload.

    Args:
        text: What happened.
        retry_after: Seconds of network time after which to try again, if that was said.
        hint: What to do about it.
    """

    def __init__(self, text: str, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(text, hint)
        self.retry_after = retry_after


class StateError(AgentError):
    """The state on disk cannot be used as it is; nothing of it was changed."""

    exit_code = Exit.REFUSED


class MissingError(StateError):
    """A file that was asked for does not exist."""


class DamagedError(StateError):
    """A file exists and is not what was once written. It is kept as evidence."""


class UnwritableError(StateError, UnavailableError):
    """What was to be kept could not be written; what was kept before still is.

    At a start that is a state that cannot be used. At work it ends when somebody frees some
    space, so whatever tries again when a peer is unavailable tries again here too.

    Args:
        text: What happened.
        hint: What to do about it.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text, hint=hint)
