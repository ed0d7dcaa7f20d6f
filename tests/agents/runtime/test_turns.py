"""Heavy work stands in line, some pieces in each turn of the loop."""

import asyncio

from agents.runtime.turns import MOST, PATIENCE, Turns


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


async def test_of_all_that_comes_at_once_a_turn_does_some_in_their_order() -> None:
    turns, done = Turns(), list[int]()

    def come(number: int) -> bool:
        return turns.run(lambda: done.append(number))

    assert [come(number) for number in range(3 * MOST)] == [True] * MOST + [False] * 2 * MOST
    assert len(turns) == 2 * MOST
    for turns_done in range(1, 4):
        assert done == list(range(turns_done * MOST))
        await turn()
    assert done == list(range(3 * MOST))


async def test_what_is_light_goes_between() -> None:
    turns, seen, light = Turns(), list[int](), list[int]()
    for _ in range(3 * MOST):
        turns.run(lambda: seen.append(len(light)))
    for number in range(6):
        light.append(number)
        await turn()
    assert seen == [place for place in range(3) for _ in range(MOST)]


async def test_who_waits_has_a_turn_of_its_own_between_the_others() -> None:
    turns, done = Turns(), list[str]()

    async def waiting(name: str) -> None:
        await turns.wait()
        done.append(name)

    for _ in range(MOST):
        turns.run(lambda: done.append("first"))
    tasks = [asyncio.create_task(waiting(name)) for name in ("a", "b")]
    await turn()
    for _ in range(MOST):
        turns.run(lambda: done.append("last"))
    await asyncio.gather(*tasks)
    await turn()
    await turn()
    assert done == ["first"] * MOST + ["a", "b"] + ["last"] * MOST


async def test_who_gave_up_costs_its_turn_and_nothing_else() -> None:
    turns, done = Turns(), list[int]()
    for _ in range(3 * MOST):
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
    for _ in range(MOST):
        turns.run(lambda: None)
    turns.run(lambda: done.remove(0))
    turns.run(lambda: done.append(1))
    for _ in range(3):
        await turn()
    assert done == [1]
    assert [type(one) for one in failed] == [ValueError]


async def test_what_waits_for_a_lull_is_done_at_the_end_of_a_turn_that_is_one() -> None:
    turns, done = Turns(), list[str]()
    turns.lull(lambda: done.append("lull"))
    assert done == []
    await turn()
    assert done == ["lull"]


async def test_a_turn_with_a_piece_is_no_lull_though_nobody_stands_in_line() -> None:
    turns, done = Turns(), list[str]()
    turns.run(lambda: done.append("piece"))
    turns.lull(lambda: done.append("lull"))
    for _ in range(3):
        await turn()
        turns.run(lambda: done.append("piece"))
    assert done == ["piece"] * 4
    for _ in range(3):
        await turn()
    assert done == ["piece"] * 4 + ["lull"]


async def test_what_waits_for_a_lull_is_done_once_for_all_that_stands_in_line() -> None:
    turns, done = Turns(), list[str]()

    async def waiting(name: str) -> None:
        await turns.wait()
        done.append(name)

    for _ in range(MOST):
        turns.run(lambda: done.append("first"))
    tasks = [asyncio.create_task(waiting("waited")) for _ in range(2 * MOST)]
    await turn()
    turns.lull(lambda: done.append("lull"))
    await asyncio.gather(*tasks)
    for _ in range(3):
        await turn()
    assert done == ["first"] * MOST + ["waited"] * 2 * MOST + ["lull"]


async def test_nothing_waits_for_a_lull_for_ever() -> None:
    turns, done = Turns(), list[int]()

    def more() -> None:
        turns.run(more)

    for _ in range(2 * MOST):
        turns.run(more)
    turns.lull(lambda: done.append(1))
    for _ in range(PATIENCE):
        assert not done
        await turn()
    await turn()
    assert done == [1]
    assert len(turns) > 0


async def test_who_waits_for_a_lull_lets_a_turn_do_no_more_than_it_may() -> None:
    turns, done = Turns(), list[int]()
    for _ in range(3):
        turns.run(lambda: done.append(1))
        turns.lull(lambda: None)
        await turn()
    before = len(done)
    for _ in range(4 * MOST):
        turns.run(lambda: done.append(1))
    assert len(done) <= before + MOST
    for turns_done in range(2, 4):
        await turn()
        assert len(done) <= before + turns_done * MOST
