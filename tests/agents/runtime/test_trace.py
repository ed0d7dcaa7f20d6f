"""The thread of a message within one process."""

import asyncio
import re

from agents.runtime.trace import current_trace, new_trace, tracing


def test_a_trace_fits_the_field_of_a_message() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", new_trace())
    assert new_trace() != new_trace()


def test_it_lasts_for_the_block_and_the_outer_one_returns() -> None:
    with tracing("aa") as outer:
        with tracing() as inner:
            assert current_trace.get() == inner != outer
        assert current_trace.get() == "aa"
    assert current_trace.get() == ""


async def test_two_tasks_have_one_each() -> None:
    seen: dict[str, str] = {}

    async def work(trace: str) -> None:
        with tracing(trace):
            await asyncio.sleep(0)
            seen[trace] = current_trace.get()

    await asyncio.gather(work("aa"), work("bb"))
    assert seen == {"aa": "aa", "bb": "bb"}
