"""What an administrator is told when an operation is refused."""

from typing import Final

from agents.runtime.errors import AgentError

__all__ = ["CODES", "OperationError"]

CODES: Final = frozenset({"bad-input", "not-found", "forbidden", "confirm", "reason", "refused"})
"""What a caller may have to tell apart: correct it, look again, ask somebody, or give it up."""


class OperationError(AgentError):
    """An operation that was asked for and not done; nothing was changed.

    Args:
        code: One of `CODES`.
        text: Why, lower case, with values. It is shown to whoever asked.
        hint: What to do about it.
    """

    def __init__(self, code: str, text: str, hint: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"code is {code!r}, not one of {', '.join(sorted(CODES))}")
        super().__init__(text, hint)
        self.code = code
