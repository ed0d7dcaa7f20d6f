"""Why something does not work at the moment, said once.

What fails is tried again for as long as it takes, and a log that repeats itself hides what else
it says. So a reason is a line when it comes up, and again when it is another or comes back. That
it is later by then, or that a new certificate begins later, makes it no other reason.
"""

import re
from typing import Final

from agents.runtime.errors import AgentError

__all__ = ["Trouble"]

DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]+")


class Trouble:
    """The reason that was said last, of one thing that is tried again and again."""

    def __init__(self) -> None:
        self._said = ""

    def is_news(self, error: AgentError) -> bool:
        """Whether this is to be said; it then counts as said."""
        reason = DATE.sub("", str(error))
        news, self._said = reason != self._said, reason
        return news

    def over(self) -> None:
        """It works again: the same reason would be news."""
        self._said = ""
