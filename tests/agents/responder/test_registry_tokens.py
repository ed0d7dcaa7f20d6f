"""The registry and its tokens: late registrations, lost answers, and copied machines (F1)."""

import asyncio
from dataclasses import replace

import pytest

from agents.runtime.errors import StateError
from protocol.messages import Register, Registered
from tests.agents.responder.line import (
    Line,
    refused,
)


@pytest.mark.req("F1")
async def test_an_answer_that_was_lost_costs_nothing(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    shown = client.token
    await client.says()  # the answer is lost: it still shows the token before
    await client.says(token=shown)
    newest = client.token
    await client.says(token=newest)


@pytest.mark.req("F1")
async def test_the_first_answer_may_be_lost_as_well(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    await client.says(token=b"", full=True)
    await client.says()


@pytest.mark.req("F1")
@pytest.mark.parametrize("token", [b"", b"\x00" * 16, b"\xff" * 32])
async def test_a_token_of_nobodys_is_a_copied_machine(
    line: Line, token: bytes, lines: list[dict[str, object]]
) -> None:
    (client,) = await line.clients("127.0.1.11")
    await client.says()
    kept = client.record
    for full in (False, True):
        message = Register(token=token, full=full, host="copy", port=4000, address="127.0.1.99")
        answer = refused(await client.asks(message, remote="127.0.1.99"), "cloned")
        assert answer.retry_after is None
    assert client.record == kept  # it changed nothing
    await client.says()
    assert [line["event"] for line in lines].count("client.cloned") == 2
    cloned = next(line for line in lines if line["event"] == "client.cloned")
    assert (cloned["client"], cloned["remote"]) == (client.id.hex(), "127.0.1.99")


@pytest.mark.req("F1")
async def test_a_registration_that_was_late_hurts_nobody(
    line: Line, lines: list[dict[str, object]]
) -> None:
    (client,) = await line.clients("127.0.1.11")
    late = Register(token=client.token)  # waits on an old link
    await client.says()
    for _ in range(10):
        assert isinstance(await client.asks(late), Registered)
    await client.says()
    kept = client.record
    refused(await client.asks(late), "cloned")  # what it shows, a copy would show as well
    assert client.record == kept
    await client.says()
    assert [line["event"] for line in lines].count("client.cloned") == 1


@pytest.mark.req("F2")
async def test_what_a_late_one_says_stands_until_everything_is_said_again(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    late = Register(token=client.token, port=4001, full=True)
    client.port = 4002
    await client.says(full=True)
    assert isinstance(await client.asks(late), Registered)
    assert client.record.port == 4001
    await client.says(full=True)
    refused(await client.asks(late), "cloned")
    assert client.record.port == 4002


@pytest.mark.req("F1")
async def test_what_is_said_twice_at_once_hurts_nobody(line: Line) -> None:
    """While one is written the other, of the same client over another link, has come."""
    (client,) = await line.clients("127.0.1.11")
    line.store.slow = True
    for newer in (0, 1):
        twice = [client.asks(Register(token=client.token)) for _ in range(2)]
        answers = await asyncio.gather(*twice)
        answer = answers[newer]
        assert isinstance(answer, Registered)
        client.token = answer.token
        await client.says()


async def test_a_client_waits_for_nobody_elses_disk(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    line.store.slow = True
    line.store.most = 0
    await asyncio.gather(one.says(), one.asks(Register(token=one.token)))
    assert line.store.most == 1
    await asyncio.gather(one.says(), two.says())
    assert line.store.most == 2


@pytest.mark.req("F1")
async def test_all_tokens_of_a_round_survive_a_restart(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    shown = client.token
    await client.says()
    first = client.token
    await client.says(token=shown)
    line.registry = line.opened()
    await line.registry.load()
    await client.says(token=shown)
    await client.says(token=first)
    refused(await client.asks(Register(token=shown)), "cloned")


@pytest.mark.req("F1")
async def test_of_two_machines_with_one_identity_one_is_told(line: Line) -> None:
    (original,) = await line.clients("127.0.1.11")
    copy = replace(original, address="127.0.1.12")
    await original.says()
    await original.says()  # the copy's token is neither the last nor the one before
    refused(await copy.asks(Register(token=copy.token)), "cloned")


@pytest.mark.req("F1")
async def test_of_two_machines_that_take_turns_the_second_is_told_in_its_second(line: Line) -> None:
    (original,) = await line.clients("127.0.1.11")
    copy = replace(original, address="127.0.1.12")
    await original.says()
    await copy.says()
    await original.says()
    refused(await copy.asks(Register(token=copy.token)), "cloned")
    await original.says()


@pytest.mark.req("F1")
async def test_tokens_survive_a_restart(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    await client.says()
    line.registry = line.opened()
    await line.registry.load()
    refused(await client.asks(Register(token=b"other", full=True, port=4000)), "cloned")
    await client.says()


@pytest.mark.req("F1")
async def test_a_token_is_on_record_before_it_is_shown(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    kept = client.record
    line.store.broken = True
    with pytest.raises(StateError):
        await client.says()
    assert client.record == kept
    line.store.broken = False
    await client.says()
    assert line.store.rows[client.id].token_out == client.token


async def test_tokens_are_never_used_twice(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    tokens = {client.token}
    for _ in range(20):
        tokens.add((await client.says()).token)
    assert len(tokens) == 21
    assert all(len(token) == 16 for token in tokens)
