"""Registering: what changed, at random intervals, for ever (F2).

    every 30 to 90 s    what changed since the last registration, and the token that it gave
    every 2 to 6 h      everything; also twice at a start, at another responder, and after one
                        that was not taken
    at once             when a neighbour is lost, or there is something new to say

A registration that was not answered may be taken all the same, also later: it may wait on an old
link, or come from the run before. It is good until the answer to a newer one has been shown. So
one says everything because the responder's row may not be what was last answered, and the next
says it again because the late one may have come between the two; after that it is refused.

All of it network time. An acknowledgement that is due goes first, over the same link. The
answer brings the place in the line, the client settings and the responder's HEAD.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agents.client.answer import EXPECTED, fault_of
from agents.client.memory import Memory, Registration
from agents.member.answering import proven
from agents.member.member import Member
from agents.member.uplink import Uplink
from agents.runtime.backoff import Backoff
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.jitter import between
from agents.runtime.remedies import REMEDIES
from agents.runtime.tasks import within
from agents.runtime.trouble import Trouble
from protocol.codes import CloseCode
from protocol.messages import HeadNotice, Message, Refused, Register, Registered

__all__ = ["Registering"]

FULL_MIN, FULL_MAX = 2 * 3600.0, 6 * 3600.0
"""Seconds between two registrations that say everything."""
FULL_IN_A_ROW = 2
"""Registrations that say everything where an earlier one may still be taken."""
MAX_LOST = 16
"""Neighbours that one registration can report; more are for the next."""
SOON = 0.05
"""Seconds in which several reasons to register at once become one registration."""


class NotTakenError(UnavailableError):
    """The answer is none that an honest responder gives."""

    def __init__(self, channel: Channel, fault: str) -> None:
        super().__init__(f"the answer is not taken: {fault}")
        self.channel = channel


class Registering:
    """Keeps one client registered.

    Args:
        facts: what this client says of itself: fields of REGISTER.
        lost: takes the neighbours that were found unreachable.
        placed: is given each answer.
        interval: shortest and longest interval, seconds.
    """

    def __init__(
        self,
        member: Member,
        uplink: Uplink,
        memory: Memory,
        *,
        facts: Callable[[], Mapping[str, Any]],
        lost: Callable[[], list[bytes]],
        placed: Callable[[Registered], None],
        interval: tuple[float, float],
    ) -> None:
        self._member = member
        self._uplink = uplink
        self._memory = memory
        self._facts = facts
        self._lost = lost
        self._placed = placed
        self._interval = interval
        self._poked = asyncio.Event()
        self._said: tuple[bytes, dict[str, Any]] | None = None
        self._unheard: dict[bytes, None] = {}
        self._full_at = 0.0
        self._full_left = FULL_IN_A_ROW
        self.responder: bytes | None = None
        """Id of the responder that took the last registration."""
        self.done = 0
        """Registrations that were taken since the start."""

    def poke(self) -> None:
        """Register soon."""
        self._poked.set()

    async def run(self) -> None:
        """Register until cancelled."""
        clock, backoff, trouble = self._member.clock, Backoff(first=1.0, last=60.0), Trouble()
        while True:
            self._poked.clear()
            try:
                await self._uplink.visit(self._register)
            except UnavailableError as exc:
                if trouble.is_news(exc):
                    self._say(exc)
                await clock.sleep(backoff.next(exc.retry_after))
                continue
            backoff.reset()
            trouble.over()
            if await within(between(*self._interval), self._poked):
                await clock.sleep(SOON)

    def _say(self, error: UnavailableError) -> None:
        if isinstance(error, NotTakenError):
            channel = error.channel
            channel.log.warning(
                "answer.refused",
                kind=channel.kind,
                remote=channel.remote,
                type=Registered.__name__,
                fingerprint=channel.fingerprint,
                expected=EXPECTED,
                reason=str(error),
                remedy=REMEDIES["not_allowed"],
            )
        else:
            self._member.log.warning("registration.failed", reason=str(error), hint=error.hint)

    async def _register(self, channel: Channel) -> None:
        responder = proven(channel).name.id
        await self._member.acknowledge(channel, responder)
        if self._said is None or self._said[0] != responder:
            self._full_left = FULL_IN_A_ROW
        answer = await self._ask(channel, responder, full=self._is_full_due())
        if isinstance(answer, Refused) and answer.reason == "full":
            answer = await self._ask(channel, responder, full=True)
        match answer:
            case Registered():
                await self._take(channel, responder, answer)
            case Refused(reason="cloned"):
                self._become_another()
                channel.close(CloseCode.NORMAL)  # it is the old identity's
                raise UnavailableError("this identity is another machine's; made a new one", 0.0)
            case Refused(text=text, retry_after=retry_after):
                raise UnavailableError(f"registration refused: {text}", retry_after)
            case _:
                raise UnavailableError(f"registration answered by {type(answer).__name__}")

    async def _ask(self, channel: Channel, responder: bytes, *, full: bool) -> Message:
        facts = dict(self._facts())
        before = {} if full or self._said is None else self._said[1]
        changes = {name: value for name, value in facts.items() if before.get(name) != value}
        token = self._memory.token(responder)
        # Kept until a registration is taken: a loss is found once, and an answer can fail.
        self._unheard.update(dict.fromkeys(self._lost()))
        lost = list(self._unheard)[:MAX_LOST]
        left, self._full_left = self._full_left, FULL_IN_A_ROW
        answer = await channel.request(Register(token=token, full=full, lost=lost, **changes))
        if isinstance(answer, Registered):
            fault = fault_of(answer, id=self._member.id)
            if fault is not None:
                raise NotTakenError(channel, fault)
            self._full_left = max(left - 1, 0)
            self._unheard = {id: None for id in self._unheard if id not in lost}
            if full:
                self._full_at = self._member.clock.monotonic() + between(FULL_MIN, FULL_MAX)
            self._said = (responder, facts)
        return answer

    def _is_full_due(self) -> bool:
        return self._full_left > 0 or self._member.clock.monotonic() >= self._full_at

    async def _take(self, channel: Channel, responder: bytes, answer: Registered) -> None:
        self.responder = responder
        self.done += 1
        # Also where the disk is full: the token that was shown is good until this one is.
        self._placed(answer)
        self._memory.keep(Registration(responder.hex(), answer.token.hex(), answer.settings))
        if answer.head is not None:
            notice = HeadNotice(head=answer.head, spread=answer.spread)
            await self._member.following.hear(channel, notice)

    def _become_another(self) -> None:
        """A copied machine: start over with an identity of our own (F1)."""
        old = self._member.id
        self._member.keyring.renew_identity()
        self._memory.forget()
        self._said = None
        self._member.log.warning("identity.renewed", old=old, fingerprint=self._member.id)
        self._member.credential_changed()
