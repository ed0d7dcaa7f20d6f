"""Requests that wait for their answer.

A call number is ours, counts up from 1 and is not used again on a link, so an answer that
comes after its deadline finds nothing and is dropped. Requests end in one of four ways:
`resolve`, `expire`, `cancel`, or `close` with the link; each returns it once.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from protocol.errors import LocalProtocolError
from protocol.messages import Message

__all__ = ["Call", "Requests"]

T = TypeVar("T", bound=Message)

_LAST_NUMBER: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way: what was asked, and until when an answer counts."""

    number: int
    request: Message
    deadline: float
    """Network time in seconds."""


class Requests:
    """The calls of one link. Not safe for concurrent use."""

    __slots__ = ("_calls", "_last")

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._last = 0

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._calls)

    def open(self, message: T, deadline: float) -> T:
        """Return `message` with its call number, and wait for its answer until `deadline`.

        Raises:
            LocalProtocolError: The message is no request, or the numbers are used up.
        """
        if not message.ANSWERS:
            raise LocalProtocolError(f"{message.FRAME.name} is no request")
        if self._last >= _LAST_NUMBER:
            raise LocalProtocolError("no call numbers left on this link")
        self._last += 1
        request = msgspec.structs.replace(message, call=self._last)
        self._calls[self._last] = Call(self._last, request, deadline)
        return request

    def resolve(self, answer: Message) -> Call | None:
        """Return the call that this is the answer to, and forget it.

        `None` for what answers nothing that waits: a late answer, a number that was never
        used, or a type that the request does not have among its answers. The call of the
        last kind goes on waiting.
        """
        call = self._calls.get(answer.call)
        if call is None or type(answer) not in call.request.ANSWERS:
            return None
        del self._calls[call.number]
        return call

    def cancel(self, number: int) -> Call | None:
        """Forget a call whose answer nobody wants any more; idempotent."""
        return self._calls.pop(number, None)

    def expire(self, now: float) -> list[Call]:
        """Return the calls whose deadline has come, and forget them; harmless when early."""
        expired = [call for call in self._calls.values() if call.deadline <= now]
        for call in expired:
            del self._calls[call.number]
        return expired

    def next_timeout(self) -> float | None:
        """Return the earliest deadline, or `None` where nothing waits."""
        return min((call.deadline for call in self._calls.values()), default=None)

    def close(self) -> list[Call]:
        """Return every call that waits, and forget them: the link has ended."""
        calls = list(self._calls.values())
        self._calls.clear()
        return calls
