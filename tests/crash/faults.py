"""A life that is cut short at any of its durable writes, in any way, and lived again.

    for fault in faults(counted): ...

`each` enumerates single faults, `pairs` a fault and another one in the recovery from it.
"""

from collections.abc import Iterator, Sequence

from tests.support.files import Failure, MemoryFiles

__all__ = ["ATOMIC", "copy", "spread"]

ATOMIC = (Failure.BEFORE, Failure.MIDDLE, Failure.AFTER)
"""How an atomic write can fail; a disk that lies is for what has two generations."""


def copy(files: MemoryFiles) -> MemoryFiles:
    """The same disk, as it is now, for another future."""
    other = MemoryFiles()
    other.content, other.modes = dict(files.content), dict(files.modes)
    return other


def spread(
    first: int, ways: Sequence[Failure], count: int, *, all_: bool
) -> Iterator[tuple[int, Failure]]:
    """The second faults to try after the `first`: all of them, or another one each time."""
    if count == 0:
        return
    if all_:
        yield from ((change, way) for change in range(1, count + 1) for way in ways)
    else:
        yield 1 + (first * 7) % count, ways[first % len(ways)]
