"""What one side of a link has asked, until it is answered, the link ends, or time is up.

    request ──► call number ──► wire        wire ──► number ──► who waits

All calls of a link share one timer; one that rings early looks again.
"""

import asyncio

from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.network import LinkError
from protocol.link import Closed
from protocol.messages import Message
from protocol.requests import Requests

__all__ = ["Outbox", "link_error"]


class Outbox:
    """The requests to one peer that wait. Belongs to its channel.

    Args:
        clock: Whose network time deadlines are in.
        name: Of the peer, for people.
    """

    __slots__ = ("_answers", "_clock", "_due", "_name", "_requests", "_timer")

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._requests = Requests()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._answers)

    def open(self, message: Message, timeout: float) -> tuple[Message, asyncio.Future[Message]]:
        """Give a request its number; return it, and what its answer or error will be set in.

        Raises:
            LocalProtocolError: The message is no request.
        """
        deadline = self._clock.monotonic() + timeout
        message = self._requests.open(message, deadline)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[message.call] = answer
        self._arm(deadline)
        return message, answer

    def resolve(self, answer: Message) -> None:
        """Give an answer to who waits; one that is too late, or to nothing, is dropped."""
        if self._requests.resolve(answer) is not None:
            self._settle(answer.call, answer)

    def forget(self, number: int) -> None:
        """Nobody waits for this any more. Idempotent."""
        self._requests.cancel(number)
        self._answers.pop(number, None)

    def close(self, event: Closed) -> None:
        """Fail all that waits: the link has ended so."""
        if self._timer is not None:
            self._timer.cancel()
        for number in self._answers:
            self._settle(number, link_error(self._name, event))

    def _settle(self, number: int, outcome: Message | Exception) -> None:
        answer = self._answers[number]
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _arm(self, due: float) -> None:
        """Have the timer ring at `due` or sooner."""
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        seconds = max(due - self._clock.monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for call in self._requests.expire(self._clock.monotonic()):
            asked = call.request.FRAME.name
            late = UnavailableError(f"no answer to {asked} from {self._name}")
            self._settle(call.number, late)
        due = self._requests.next_timeout()
        if due is not None:
            self._arm(due)


def link_error(name: str, event: Closed) -> LinkError:
    """The error of everything that waited on a link that ended so."""
    who = "closed by the peer" if event.by_peer else "closed"
    why = f": {event.text}" if event.text else ""
    return LinkError(
        f"link to {name} {who} ({event.code.name.lower()}){why}",
        code=event.code,
        by_peer=event.by_peer,
        retry_after=event.retry_after,
        peer_time=event.time,
    )
