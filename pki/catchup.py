"""How entries travel: what a responder answers, and how the asker collects it.

    asker      LEDGER_GET      slot, n, entry id                    its last entry
    responder  LEDGER_ENTRIES  slot, first n, [entries], more, head

The answer goes on from n + 1 where the responder's chain has that entry, and from 0 where it
has not. An answer holds at most 64 KiB; while there is more, the asker names the last entry it
has been given, and asks again. What is collected proves nothing until all of it went through
`pki.trust.accept_entries` at once: a root that came and went inside a catch-up is never used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pki.entries import decode_entry
from pki.errors import MalformedError
from pki.ledger import MAX_CHAIN, MAX_ENTRIES
from pki.state import TrustState
from pki.steps import Last

__all__ = ["MAX_ANSWER", "Answer", "Collection", "answer"]

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer, its other fields among them."""

ANSWER_FIELDS: Final = 512
"""Bytes left for the fields beside the entries and the head."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields of a LEDGER_ENTRIES."""

    first_n: int
    entries: tuple[bytes, ...]
    more: bool
    head: bytes | None


def answer(state: TrustState, slot: bytes, n: int, entry_id: bytes) -> Answer:
    """Answer a LEDGER_GET.

    Of a slot that is not known nothing is said, so who has no bundle learns nothing.
    """
    known = state.find(slot)
    if known is None:
        return Answer(0, (), False, None)
    chain = known.chain
    first = n + 1 if chain.has(n, entry_id) else 0
    head = known.latest_head
    room = MAX_ANSWER - ANSWER_FIELDS - len(head or b"")
    entries: list[bytes] = []
    for entry in chain.entries[first:]:
        encoded = entry.encode()
        room -= len(encoded) + 5
        if room < 0:
            break
        entries.append(encoded)
    return Answer(first, tuple(entries), first + len(entries) < len(chain.entries), head)


class Collection:
    """What one source has to say about one slot, piece by piece.

    Put `asks_after` into a LEDGER_GET, give the answer to `receive`, and repeat until `complete`;
    then hand `first_n` and `entries` to `accept_entries`. After an error nothing of it is to be
    used. Holds at most what a full chain may hold.
    """

    def __init__(self, slot: bytes, last: Last) -> None:
        self.slot = slot
        self.first_n = last.n + 1
        self.complete = False
        self._asks = last
        self._entries: list[bytes] = []
        self._size = 0

    @property
    def asks_after(self) -> Last:
        """Number and id of the entry after which the next answer should begin."""
        return self._asks

    @property
    def entries(self) -> tuple[bytes, ...]:
        """Everything received so far, in order."""
        return tuple(self._entries)

    def receive(self, first_n: int, entries: Sequence[bytes], *, more: bool) -> None:
        """Take an answer.

        Raises:
            MalformedError: It does not go on where we asked, or never ends.
        """
        if not self._entries and first_n == 0:
            self.first_n = 0
        expected = self.first_n + len(self._entries)
        if entries and first_n != expected:
            raise MalformedError(f"answer from entry {first_n}, expected {expected}")
        if more and not entries:
            raise MalformedError("answer of no entries, with more to come")
        self._size += sum(len(entry) for entry in entries)
        if expected + len(entries) > MAX_ENTRIES or self._size > MAX_CHAIN:
            raise MalformedError("more entries than a chain may have")
        self._entries.extend(entries)
        self.complete = not more
        if entries:
            self._asks = Last(expected + len(entries) - 1, decode_entry(entries[-1]).id)
