"""Heavy work stands in line, one piece in each turn of the loop."""

import asyncio

from agents.runtime.turns import Turns


async def turn() -> None:
    """Let everything run that is ready now."""
    await asyncio.sleep(0)


async def test_alone_nothing_waits() -> None:
    turns, done = Turns(), list[int]()
    assert turns.run(lambda: done.append(1))
    await turn()
    await turn()
    await turns.wait()
    assert done == [1]


async def test_of_all_that_comes_at_once_a_turn_does_one_in_its_order() -> None:
    turns, done = Turns(), list[int]()
    assert turns.run(lambda: done.append(0))
    for number in range(1, 4):
        assert not turns.run(lambda number=number: done.append(number))  # type: ignore[misc]
    assert len(turns) == 3
    for most in range(1, 5):
        assert done == list(range(most))
        await turn()


async def test_what_is_light_goes_between() -> None:
    turns, seen, light = Turns(), list[int](), list[int]()
    for _ in range(3):
        turns.run(lambda: seen.append(len(light)))
    for number in range(6):
        light.append(number)
        await turn()
    assert seen == [0, 1, 2]


async def test_who_waits_has_a_turn_of_its_own_between_the_others() -> None:
    turns, done = Turns(), list[str]()

    async def waiting(name: str) -> None:
        await turns.wait()
        done.append(name)

    turns.run(lambda: done.append("first"))
    tasks = [asyncio.create_task(waiting(name)) for name in ("a", "b")]
    await turn()
    turns.run(lambda: done.append("last"))
    await asyncio.gather(*tasks)
    await turn()
    assert done == ["first", "a", "b", "last"]


async def test_who_gave_up_costs_its_turn_and_nothing_else() -> None:
    turns, done = Turns(), list[int]()
    for _ in range(3):
        turns.run(lambda: None)
    waiting = asyncio.create_task(turns.wait())
    await turn()
    assert len(turns) > 1
    turns.run(lambda: done.append(1))
    waiting.cancel()
    for _ in range(5):
        await turn()
    assert done == [1]
    assert waiting.cancelled()


async def test_work_that_fails_holds_up_nobody() -> None:
    turns, done = Turns(), list[int]()
    failed = list[BaseException]()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: failed.append(context["exception"])
    )
    turns.run(lambda: None)
    turns.run(lambda: done.remove(0))
    turns.run(lambda: done.append(1))
    for _ in range(3):
        await turn()
    assert done == [1]
    assert [type(one) for one in failed] == [ValueError]
