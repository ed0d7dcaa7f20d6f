"""What the peer of one link asks: kept, handled, answered.

    wire ──► handler ──► answer                         it had its answer at once
             handler ──► task ──► (room?) ──► answer    it had to wait for it

1. The handler is called at once, with `current_trace` set to the trace of the message. If it has
   its answer, that is sent. If it has to wait, what it returned runs as a task of its own, under
   `Clock.hold`. At most `Serving.handlers` at once; `Serving.queue` more are kept, and then the
   socket is read no further until half of them are gone: the peer feels it as a full buffer. What
   came in the same read is kept too.
2. A handler that itself waits for an answer on this same link does not count, else two sides
   that ask each other in a handler would stand still; `Serving.tasks` bounds those too. Where all
   of these wait so, only what comes next can help: it is read while the peer reads too, and what
   has no room is refused.
3. An answer is sent when the peer has room for it, and its handler counts until then: who does
   not read answers is soon read no further.
4. A handler that raises is answered by `Refused`: an `UnavailableError` as "unavailable" with
   its `retry_after`, anything else as "internal", with a log line and without details.
5. A handler is not cancelled when its link ends, for what it does must be whole; its own
   requests on this link fail then, so it ends soon.
6. Who has proven nothing asks one thing after the other, and is seldom refused. Strangers are as
   many as there are addresses, so one that asks for more than is kept for it, or is refused again
   and again, is sent away: its next attempt costs it another handshake.
"""

import asyncio
import functools
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger
from agents.runtime.network import Answer, Handler
from agents.runtime.remedies import REMEDIES
from agents.runtime.trace import current_trace, new_trace
from agents.runtime.wire import Wire
from protocol.codes import CloseCode
from protocol.errors import LinkClosedError, LocalProtocolError
from protocol.messages import Enrol, Message, Ping, Pong, Refused

if TYPE_CHECKING:
    from agents.runtime.channel import Channel

__all__ = ["SERVING", "STRANGERS", "Inbox", "Serving", "say_refused"]

EXCUSED: Final = frozenset({"busy", "unavailable"})
"""Refusals that are no fault of who asked."""
BUSY: Final = 1.0
"""Seconds after which one is asked to try again that found no room."""
LIES: Final = frozenset({"identity", "signature"})
"""Refusals of what a proven peer says in another's name: a line each, as for a link (E5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How much of one peer's work is done at once."""

    handlers: int = 32
    """Handlers that run. More than a disk or a database takes at once from one peer; a hub's
    link carries a whole zone."""
    queue: int = 64
    """Requests kept beyond those. Their size is bounded by the frame limits."""
    tasks: int = 128
    """Handlers that run or wait on this link itself."""
    refusals: int | None = None
    """Refusals after which the link ends, as it does for more requests than `queue`; None: it
    does for neither."""


SERVING: Final = Serving()
"""What a peer gets that has proven who it is."""
STRANGERS: Final = Serving(handlers=2, queue=8, tasks=4, refusals=8)
"""What one gets that has not."""

# These two stay empty.
_NO_QUEUE: Final[list[Message]] = []  # a deque takes 600 bytes when empty
_NO_TASKS: Final[dict[asyncio.Task[None], None]] = {}  # an empty set takes 150 bytes more
_RUNNING: Final[set[asyncio.Task[None]]] = set()
"""The loop keeps tasks weakly; a handler may outlive its link (rule 5)."""


class Inbox:
    """The requests of one peer. Belongs to its channel."""

    __slots__ = (
        "_channel",
        "_clock",
        "_handler",
        "_nested",
        "_queue",
        "_refused",
        "_serving",
        "_tasks",
        "_wire",
    )

    def __init__(
        self, channel: "Channel", wire: Wire, handler: Handler, *, clock: Clock, serving: Serving
    ) -> None:
        # None after its end, so that the two are no cycle; a handler at work keeps its own.
        self._channel: Channel | None = channel
        self._wire = wire
        self._handler = handler
        self._clock = clock
        self._serving = serving
        self._queue = _NO_QUEUE  # most links never have one of the two
        self._tasks = _NO_TASKS
        self._nested = 0
        self._refused = 0

    @property
    def busy(self) -> bool:
        """Whether a request is being handled, or waits for that."""
        return bool(self._tasks or self._queue)

    def put(self, message: Message) -> None:
        """Take a request, and read no more of them where there are too many."""
        channel = self._channel
        if channel is None:
            return  # it has ended, and this came in the same read
        if self._queue or (self._tasks and not self._may_start()):
            full, stuck = len(self._queue) >= self._serving.queue, self._stuck()
            if full and self._serving.refusals is not None:
                channel.close(CloseCode.NOT_ALLOWED, "asks for more at once than a stranger may")
                return
            if full and stuck:
                busy = Refused(reason="busy", text="all at work wait for you", retry_after=BUSY)
                self._send(channel, message, busy, message.trace or new_trace())
                if self._wire.write_blocked:
                    self._wire.pause()  # refusals that it does not read fill our memory
                return
            if self._queue is _NO_QUEUE:
                self._queue = []
            self._queue.append(message)
            if len(self._queue) >= self._serving.queue and not stuck:
                self._wire.pause()
        else:
            self._start(message)

    def close(self) -> None:
        """Forget what was not begun: the link has ended."""
        self._queue = _NO_QUEUE
        self._channel = None

    def writable(self) -> None:
        """Go on reading, if the peer's not reading was what kept us from it."""
        if self._queue:
            self._serve()

    def nest(self) -> bool:
        """Say that who calls waits on this link; True if it is a handler of it (rule 2)."""
        if asyncio.current_task() not in self._tasks:
            return False
        self._nested += 1
        self._serve()
        return True

    def unnest(self) -> None:
        """Say that this handler waits no more."""
        self._nested -= 1

    def _stuck(self) -> bool:
        """Whether all that may run wait for the peer's answers (rule 2)."""
        return self._nested == len(self._tasks) >= self._serving.tasks

    def _may_start(self) -> bool:
        running = len(self._tasks)
        return running - self._nested < self._serving.handlers and running < self._serving.tasks

    def _start(self, message: Message) -> None:
        channel = self._channel
        if channel is None:
            return
        trace = message.trace or new_trace()
        token = current_trace.set(trace)
        answer: Answer | Awaitable[Answer]
        try:
            if type(message) is Ping and not message.sender:
                answer = Pong(id=message.id)  # of the link, which had no room for it
            else:
                answer = self._handler(channel, message)
        except Exception as exc:
            answer = _failed(channel, message, exc)
        finally:
            current_trace.reset(token)
        if answer is None:
            return
        if isinstance(answer, Message) and not self._wire.write_blocked:
            self._send(channel, message, answer, trace)
            return
        finishing = self._finish(channel, message, answer, trace)
        task = asyncio.get_running_loop().create_task(finishing)
        if self._tasks is _NO_TASKS:
            self._tasks = {}
        self._tasks[task] = None
        _RUNNING.add(task)
        task.add_done_callback(functools.partial(self._handled, answer))

    def _handled(self, answer: Message | Awaitable[Answer], task: asyncio.Task[None]) -> None:
        if isinstance(answer, Coroutine):
            answer.close()  # nothing, unless the task was cancelled before its first step
        self._tasks.pop(task, None)
        _RUNNING.discard(task)
        self._serve()
        if self._channel is not None:
            self._channel.settle()

    def _serve(self) -> None:
        while self._queue and self._may_start():
            self._start(self._queue.pop(0))
        if len(self._queue) <= self._serving.queue // 2 or self._stuck():
            self._wire.resume()

    async def _finish(
        self,
        channel: "Channel",
        message: Message,
        answer: Message | Awaitable[Answer],
        trace: str,
    ) -> None:
        current_trace.set(trace)  # a task has a context of its own
        with self._clock.hold():
            if not isinstance(answer, Message):
                try:
                    awaited = await answer
                except Exception as exc:
                    awaited = _failed(channel, message, exc)
                if awaited is None:
                    return
                answer = awaited
            await channel.writable()
            if channel.is_open:
                self._send(channel, message, answer, trace)

    def _send(self, channel: "Channel", message: Message, answer: Message, trace: str) -> None:
        refused = answer if type(answer) is Refused else None
        if refused is not None:
            _say_lie(channel, message, refused, trace)
        answer = msgspec.structs.replace(answer, call=message.call, trace=trace)
        try:
            channel.send(answer)
        except LinkClosedError:
            return  # its CLOSE came right behind the request
        except LocalProtocolError as exc:
            channel.log.error(
                "answer.unsendable", type=type(answer).__name__, problem=str(exc), trace=trace
            )
            # On a discovery link there are no words for it, and the peer must not wait.
            channel.close(CloseCode.INTERNAL, str(exc))
        if refused is not None:
            self._count(channel, refused)

    def _count(self, channel: "Channel", answer: Refused) -> None:
        """Send away who is refused again and again (rule 6)."""
        most = self._serving.refusals
        if most is None or answer.reason in EXCUSED:
            return
        self._refused += 1
        if self._refused >= most:
            channel.close(CloseCode.NOT_ALLOWED, f"refused {most} times")


def _failed(channel: "Channel", message: Message, error: Exception) -> Refused:
    """The last door before the peer: whatever it is, it costs this one request (rule 4)."""
    if isinstance(error, UnavailableError):
        return Refused(reason="unavailable", retry_after=error.retry_after)
    channel.log.exception("handler.failed", type=type(message).__name__, trace=current_trace.get())
    return Refused(reason="internal", text="the other side failed; its log says how")


def _say_lie(channel: "Channel", message: Message, answer: Refused, trace: str) -> None:
    # What is wrong with a request for a certificate is said where it is judged.
    if answer.reason in LIES and type(message) is not Enrol:
        expected = f"{channel.name} alone"
        say_refused(channel.log, channel, message, answer, expected=expected, trace=trace)


def say_refused(
    log: Logger,
    channel: "Channel",
    message: Message,
    answer: Refused,
    *,
    expected: str,
    trace: str = "",
) -> None:
    """Write the line of a request that no honest peer makes (E5)."""
    log.warning(
        "request.refused",
        link=channel.id,
        kind=channel.kind,
        remote=channel.remote,
        type=type(message).__name__,
        fingerprint="-" if channel.peer is None else channel.peer.leaf.fingerprint,
        expected=expected,
        reason=answer.text,
        remedy=REMEDIES["not_allowed"],
        trace=trace or message.trace or current_trace.get(),
    )
