"""Play many seeds, or one with its trace: `make simulate`."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.run import Result, play

__all__ = ["main", "many"]

TAIL = 60
"""Lines of a trace that are shown of a seed that nobody asked for."""


def many(seeds: Iterable[int], *, jobs: int | None = None) -> Iterator[Result]:
    """Play seeds, several at once, and give the results in their order."""
    # Spawned: a fork would copy whatever threads and loops the caller has.
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=context) as pool:
        yield from pool.map(play, seeds, chunksize=10)


def main(arguments: list[str] | None = None) -> int:
    """Play what is asked for; returns 1 if anything was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--jobs", type=int, help="processes; one a processor if not given")
    asked = parser.parse_args(arguments)
    if asked.seed is not None:
        result = play(asked.seed)
        print("\n".join(result.trace))
        print(result)
        return int(bool(result.broken))
    played = broken = fooled = connections = 0
    seconds = 0.0
    for result in many(range(asked.first, asked.first + asked.seeds), jobs=asked.jobs):
        played += 1
        broken += bool(result.broken)
        fooled += result.fooled
        connections += result.connections
        seconds += result.seconds
        if result.broken:
            print("\n".join([*result.trace[-TAIL:], str(result)]))
            print(f"replay: make simulate SEED={result.plan.seed}\n", flush=True)
        if played % 100 == 0:
            print(f"{played} seeds, {broken} broken", file=sys.stderr, flush=True)
    print(
        f"{played} worlds, {seconds / 3600:.0f} hours of network time, {connections} connections,"
        f" {fooled} clients misled for a while: {broken} broken"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
