"""Following the ledger over a link: hearing of a HEAD, pulling entries, passing it on.

    HEAD counts          it is ours to keep; pass it to the other links
    the same             nothing to do
    n beyond ours        catch up from whoever told us, then judge it again
    a fork               reported; nothing changes

What is pulled proves itself, so any source will do (B6, B10): the responder, a neighbour, a
mirror. An unverified HEAD beyond ours costs one catch-up a minute and link at the most (rule
12). A HEAD is answered at once; what it makes us do goes on under a hold of our own. It is not
announced again on a link that stands, so what could not be asked for, or not be kept, is asked for
again as often as that.

The *spread* comes beside a HEAD and nobody has signed it. It is taken only with a HEAD that
counts, and never for more than a quarter of our shortest renewal window: who stands on the way
can hurry or delay the renewals after a rotation within that, and nothing else.
"""

from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from agents.member.trust import EXPECTED_HISTORY, REMEDY_OF_REFUSED, Trust
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError, UnwritableError
from agents.runtime.logs import Logger
from agents.runtime.tasks import Spawn
from agents.runtime.trouble import Trouble
from pki.catchup import Collection
from pki.errors import MalformedError, PKIError
from pki.trust import Verdict
from protocol.messages import Done, HeadNotice, LedgerEntries, LedgerGet, Refused

__all__ = ["Following", "answer_ledger_get"]

MAX_CATCH_UP = 60.0
"""Seconds of network time for one catch-up of every slot (*Catching up* 4)."""
UNVERIFIED_INTERVAL = 60.0
"""Seconds between catch-ups that only an unverified HEAD asked for, a link (*Head* 4)."""

Relay = Callable[[Channel | None, HeadNotice], Coroutine[Any, Any, None]]


class Following:
    """Keeps `trust` at the end of its ledger.

    Args:
        relay: passes a counted HEAD to every other link; called with the link it came by.
        longest_spread: the most seconds that a spread is believed for, at this moment.
    """

    def __init__(
        self,
        trust: Trust,
        *,
        clock: Clock,
        spawn: Spawn,
        log: Logger,
        relay: Relay,
        longest_spread: Callable[[], float],
    ) -> None:
        self._trust = trust
        self._clock = clock
        self._spawn = spawn
        self._log = log
        self._relay = relay
        self._longest_spread = longest_spread
        self._trouble = Trouble()
        self._pulled: WeakKeyDictionary[Channel, float] = WeakKeyDictionary()
        self._pulling: WeakSet[Channel] = WeakSet()
        """Links that are asked until they have said what they announced."""
        self.spread = 0.0
        """Seconds over which renewals after the last rotation are to be spread (B13)."""

    async def notice(self, channel: Channel, notice: HeadNotice) -> Done:
        """Take a HEAD that a link announced."""
        if self._is_worth_a_pull(channel, notice) and channel not in self._pulling:
            self._pulling.add(channel)
            self._spawn(self._pull_until_kept(channel, notice))
        return Done()

    async def hear(self, channel: Channel, notice: HeadNotice) -> None:
        """The same for a link that ends after this: returns when nothing more is to be pulled."""
        if self._is_worth_a_pull(channel, notice):
            await self._pull(channel, notice)

    async def greet(self, channel: Channel) -> None:
        """Tell a new link the newest HEAD that we know; it does the same.

        Raises:
            UnavailableError: the link broke.
        """
        head = self._trust.latest_head()
        if head is not None:
            await channel.request(HeadNotice(head=head, spread=self.spread))

    async def catch_up(self, channel: Channel, notice: HeadNotice | None = None) -> bool:
        """Pull every slot from this link until it has no more; True if ours changed.

        Args:
            channel: the link to ask.
            notice: what was announced, if anything was; judged with what the link says.

        Raises:
            UnavailableError: the link broke or answered too slowly.
        """
        until = self._clock.monotonic() + MAX_CATCH_UP
        changed = False
        for slot in self._trust.slots:
            changed |= await self._catch_up_slot(channel, slot, until, notice)
        return changed

    async def _catch_up_slot(
        self, channel: Channel, slot: bytes, until: float, notice: HeadNotice | None
    ) -> bool:
        collection = Collection(slot, self._trust.last(slot))
        head: bytes | None = None
        while not collection.complete:
            answer = await self._ask(channel, collection, until)
            if answer is None:
                return False
            head = answer.head
        changed = bool(collection.entries) and self._trust.entries(
            slot,
            collection.first_n,
            collection.entries,
            source=channel.name,
            log=_log_of(channel),
        )
        # From here on without a wait: whoever is woken by the new trust finds its spread.
        if changed:
            self.spread = 0.0
        news = None if notice is None else self._judged(channel, notice)
        if head is not None:
            news = self._judged(channel, HeadNotice(head=head, spread=self.spread)) or news
        if news is not None:
            self._pass_on(channel, news)
        return changed

    async def _ask(
        self, channel: Channel, collection: Collection, until: float
    ) -> LedgerEntries | None:
        """One piece of a catch-up; None where this source says no more that can be used."""
        left = until - self._clock.monotonic()
        if left <= 0:
            raise UnavailableError(f"catch-up from {channel.name} took over {MAX_CATCH_UP:.0f} s")
        after = collection.asks_after
        answer = await channel.request(
            LedgerGet(slot=collection.slot, n=after.n, entry_id=after.id), timeout=min(left, 15.0)
        )
        if isinstance(answer, Refused):
            raise UnavailableError(answer.text or answer.reason)
        if not isinstance(answer, LedgerEntries):
            return None
        try:
            if answer.slot != collection.slot:
                raise MalformedError(f"answer about slot {answer.slot.hex()}")
            collection.receive(answer.first, answer.entries, more=answer.more)
        except PKIError as exc:
            _log_of(channel).warning(
                "ledger.refused",
                source=channel.name,
                expected=EXPECTED_HISTORY,
                reason=str(exc),
                remedy=REMEDY_OF_REFUSED,
            )
            return None
        return answer

    async def _pull_until_kept(self, channel: Channel, notice: HeadNotice) -> None:
        again = False
        try:
            again = not await self._pull(channel, notice)
        finally:
            if not again:
                self._pulling.discard(channel)
        if again:
            # Policy time does not wait for what may take for ever.
            self._spawn(self._pull_again(channel, notice), hold=False)

    async def _pull_again(self, channel: Channel, notice: HeadNotice) -> None:
        try:
            await self._clock.sleep(UNVERIFIED_INTERVAL)
            while channel.is_open:
                with self._clock.hold():
                    if await self._pull(channel, notice):
                        break
                await self._clock.sleep(UNVERIFIED_INTERVAL)
        finally:
            self._pulling.discard(channel)

    async def _pull(self, channel: Channel, notice: HeadNotice) -> bool:
        """Catch up if that is possible; False if more is to be learnt, or was not kept."""
        try:
            changed = await self.catch_up(channel, notice)
        except UnwritableError as exc:
            if self._trouble.is_news(exc):
                self._log.error("ledger.unwritable", reason=str(exc), remedy=exc.hint)
            return False
        except UnavailableError as exc:
            if self._trouble.is_news(exc):
                self._log.warning("ledger.unreachable", source=channel.name, reason=str(exc))
            return False
        self._trouble.over()
        if changed:
            # What was announced has proven itself: the limit is for what does not.
            self._pulled.pop(channel, None)
        return True

    def _is_worth_a_pull(self, channel: Channel, notice: HeadNotice) -> bool:
        verdict = self._take_head(channel, notice)
        if verdict is Verdict.COUNTED:
            self._pass_on(channel, self._spread_as(notice))
        return verdict is Verdict.BEHIND and self._may_pull(channel)

    def _judged(self, channel: Channel, notice: HeadNotice) -> HeadNotice | None:
        """The notice as it is passed on, if its HEAD counts."""
        counts = self._take_head(channel, notice) is Verdict.COUNTED
        return self._spread_as(notice) if counts else None

    def _take_head(self, channel: Channel, notice: HeadNotice) -> Verdict:
        return self._trust.take_head(notice.head, source=channel.name, log=_log_of(channel))

    def _spread_as(self, notice: HeadNotice) -> HeadNotice:
        """Take the spread of a counted HEAD, within reason."""
        self.spread = min(notice.spread, self._longest_spread())
        return HeadNotice(head=notice.head, spread=self.spread)

    def _may_pull(self, channel: Channel) -> bool:
        now = self._clock.monotonic()
        last = self._pulled.get(channel)
        if last is not None and now - last < UNVERIFIED_INTERVAL:
            return False
        self._pulled[channel] = now
        return True

    def _pass_on(self, channel: Channel | None, notice: HeadNotice) -> None:
        self._spawn(self._relay(channel, notice))


def _log_of(channel: Channel) -> Logger:
    """For lines that say which link, and whose key (E5)."""
    return channel.log.bind(fingerprint=channel.fingerprint)


def answer_ledger_get(trust: Trust, message: LedgerGet) -> LedgerEntries:
    """Answer from our own ledger, to anybody: bytes that prove themselves."""
    answer = trust.answer(message.slot, message.n, message.entry_id)
    return LedgerEntries(
        slot=message.slot,
        first=answer.first_n,
        entries=list(answer.entries),
        more=answer.more,
        head=answer.head,
    )
