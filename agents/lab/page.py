"""Policy time of a lab: legs, and the shared page from which every process reads them.

A *leg* says how policy time moves from p0 to p1 while network time passes:

    policy   p1 ............ .--------------     time stands at p1 until the next leg
                           /
             p0 ----------'                      rate = slope
                          start                  network (CLOCK_MONOTONIC)

    clamp(p0 + (monotonic - start) * rate, p0, p1)

A leg is never cut short and the next one begins where it ended. So whoever reads
the page late, or still has the leg before, is behind the others at most, never
ahead, and nobody's time goes back.

The page is an array of 64-bit words in shared memory, with one writer:

    word 0         MAGIC
    word 1         origin: policy time of the first leg, µs since 1970
    word 2         generation: number of the newest leg, from 1
    word 8 + 8*s   slot s of RING = generation % RING:
                   generation, start (ns), p0 (µs), p1 (µs), rate (1/1000), check

1. The slot is written first, the generation last; a reader takes the generation,
   then its slot, and the writer needs RING more legs to come round to it again.
2. A word is stored by one 8-byte store of a `memoryview.cast("Q")`.
   `struct.pack_into` clears its target and then fills it: readers see zeros and
   torn fields. That was tried, and a test keeps the fact.
3. `check` is the exclusive or of the slot's other words and MAGIC: a reader that
   was overtaken, or a machine that reorders stores, is noticed, and reads again.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["LEAP", "RING", "Leg", "Page", "milli"]

RING: Final = 64
"""Legs kept; a reader would have to sleep through as many between two loads."""

LEAP: Final = 2**63
"""The rate, in thousandths, of a leg that is over after a nanosecond or so."""

MAGIC: Final = 0x414E43484C494E45
WORDS_BEFORE_SLOTS: Final = 8
WORDS_PER_SLOT: Final = 8
SIZE: Final = 8 * (WORDS_BEFORE_SLOTS + RING * WORDS_PER_SLOT)
MAX_ATTEMPTS: Final = 10_000


def milli(rate: float) -> int:
    """Return a rate (policy seconds per network second) in the thousandths of the page."""
    return max(1, round(rate * 1000))


@dataclass(frozen=True, slots=True)
class Leg:
    """How policy time moves, until the next leg."""

    start: int
    """Network time, ns."""
    p0: int
    """Policy time at `start`, µs since 1970."""
    p1: int
    """Policy time that this leg never passes, µs since 1970; not before `p0`."""
    rate: int
    """Policy time per network time, in thousandths."""

    def __post_init__(self) -> None:
        if self.p1 < self.p0 or self.rate < 1:
            raise ValueError(f"leg from {self.p0} to {self.p1} at rate {self.rate} goes nowhere")

    def at(self, monotonic_ns: int) -> int:
        """Return policy time, µs since 1970, at a moment of network time."""
        moved = max(monotonic_ns - self.start, 0) * self.rate // 1_000_000
        return min(self.p0 + moved, self.p1)

    def when(self, policy: int) -> int:
        """Return the first moment of network time, ns, at which time is at `policy`.

        Raises:
            ValueError: this leg does not come there.
        """
        if policy > self.p1:
            raise ValueError(f"{policy} is past the end of this leg at {self.p1}")
        return self.start - (-max(policy - self.p0, 0) * 1_000_000 // self.rate)


class Page:
    """The shared page: one process writes legs, any number read the newest.

    `create` makes it and `attach` maps it in another process, for reading only.
    """

    __slots__ = ("_generation", "_map", "_words", "fd")

    def __init__(self, fd: int, *, writable: bool) -> None:
        self.fd = fd
        """The descriptor to hand to a child; closed by `close`."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(fd, SIZE, access=access)
        self._words = memoryview(self._map).cast("Q")
        self._generation = 0

    @classmethod
    def create(cls, policy: int, monotonic_ns: int, path: Path | None = None) -> Self:
        """Make a page on which time stands at `policy` (µs since 1970).

        Args:
            policy: where time begins.
            monotonic_ns: network time now.
            path: of a file to make, for processes that cannot inherit a descriptor.
        """
        if path is None:
            fd = os.memfd_create("anchorline-lab-time")
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, SIZE)
        page = cls(fd, writable=True)
        page._words[1] = policy
        page.publish(Leg(monotonic_ns, policy, policy, 1))
        page._words[0] = MAGIC
        return page

    @classmethod
    def attach(cls, place: int | Path) -> Self:
        """Map a page that another process made, by descriptor (which is duplicated) or path.

        Raises:
            ValueError: that is no page of a lab.
        """
        fd = os.dup(place) if isinstance(place, int) else os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(fd).st_size != SIZE:
            os.close(fd)
            raise ValueError(f"not a page of a lab: {place!r}")
        page = cls(fd, writable=False)
        if page._words[0] != MAGIC:
            page.close()
            raise ValueError(f"not a page of a lab: {place!r}")
        return page

    @property
    def origin(self) -> int:
        """Policy time of the first leg, µs since 1970."""
        return self._words[1]

    @property
    def generation(self) -> int:
        """The number of legs so far."""
        return self._words[2]

    def publish(self, leg: Leg) -> None:
        """Make `leg` the newest. For the one writer only."""
        words = self._words
        self._generation = generation = self._generation + 1
        at = WORDS_BEFORE_SLOTS + generation % RING * WORDS_PER_SLOT
        words[at] = generation
        words[at + 1] = leg.start
        words[at + 2] = leg.p0
        words[at + 3] = leg.p1
        words[at + 4] = leg.rate
        words[at + 5] = generation ^ leg.start ^ leg.p0 ^ leg.p1 ^ leg.rate ^ MAGIC
        words[2] = generation

    def read(self) -> Leg:
        """Return the newest leg.

        Raises:
            RuntimeError: no slot could be read whole; the page is not written as it must be.
        """
        words = self._words
        for _ in range(MAX_ATTEMPTS):
            wanted = words[2]
            at = WORDS_BEFORE_SLOTS + wanted % RING * WORDS_PER_SLOT
            generation, start, p0, p1, rate, check = words[at : at + 6]
            if generation == wanted and check == generation ^ start ^ p0 ^ p1 ^ rate ^ MAGIC:
                return Leg(start, p0, p1, rate)
        raise RuntimeError("no whole leg on the page")

    def close(self) -> None:
        """Unmap the page and close its descriptor."""
        self._words.release()
        self._map.close()
        os.close(self.fd)
