"""Programs for a lab in the tests: they wait for dates, and work, as the daemons do.

    python -m tests.agents.lab.programs <what> <page descriptor> <socket descriptor> <argument>

`hourly N` waits for N dates an hour apart, at a minute of its own, and prints for
each when it was due and when it ran. `mute` is due in an hour and never listens.
"""

import asyncio
import json
import signal
import sys
from datetime import timedelta

import uvloop

from agents.lab.clock import REPORT, LabClock, to_micros


async def hourly(clock: LabClock, times: int, minute: int) -> None:
    date = clock.now() + timedelta(minutes=minute)
    rows: list[tuple[int, int]] = []
    for _ in range(times):
        waiting = asyncio.create_task(clock.wait_until(date))
        clock.ready()
        await waiting
        rows.append((to_micros(date), to_micros(clock.now())))
        date += timedelta(hours=1)
    print(json.dumps(rows), flush=True)


def mute(clock: LabClock) -> None:
    date = to_micros(clock.now() + timedelta(hours=1))
    clock._socket.send(REPORT.pack(date, 0, 0, 0))
    print("mute", flush=True)
    signal.pause()


def main() -> None:
    what, page, sock, argument = sys.argv[1:]
    clock = LabClock.attach(int(page), int(sock))
    if what == "mute":
        mute(clock)
    else:
        uvloop.run(hourly(clock, int(argument), minute=int(sock) % 60))


if __name__ == "__main__":
    main()
