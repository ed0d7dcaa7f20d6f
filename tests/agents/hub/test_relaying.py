"""What a hub carries inwards: with who sent it, and nothing of its own (E2)."""

import asyncio

import pytest
from msgspec.structs import replace

from agents.hub.relaying import RETRY_AFTER, relay
from agents.runtime.channel import Channel
from pki.names import Role
from protocol import codec
from protocol.access import LinkClass
from protocol.frames import FrameType
from protocol.messages import (
    Done,
    Enrol,
    Message,
    Nonce,
    NonceGet,
    Pending,
    Pong,
    Refused,
    Relay,
    Relayed,
    Report,
)
from tests.support.channels import Answering, FakeChannel
from tests.support.deployment import Deployment

ZONE = bytes(range(50, 66))
ASKED = NonceGet(kind="client-ca", spki=b"identity", trace="ab", call=77)
NONCE = Nonce(nonce=bytes(32))


def answers(message: Message) -> Answering:
    async def answering(_channel: Channel, _message: Message) -> Message:
        return message

    return answering


def wrapped(message: Message) -> Relayed:
    return Relayed(inner_type=message.FRAME, inner=codec.encode_body(message))


def member_link() -> FakeChannel:
    return FakeChannel(peer=Deployment().peer(Role.ZONE_SERVER, id=ZONE))


def stranger_link() -> FakeChannel:
    return FakeChannel(link_class=LinkClass.ENROLMENT)


def envelope(server: FakeChannel) -> Relay:
    (message,) = server.asked
    assert isinstance(message, Relay)
    return message


@pytest.mark.req("E2")
async def test_a_proven_zone_server_is_named_by_its_certificate() -> None:
    server = FakeChannel(answers(wrapped(NONCE)))
    assert await relay(server.channel, member_link().channel, ASKED) == NONCE
    sent = envelope(server)
    assert (sent.proven, sent.zone) == (True, ZONE)


@pytest.mark.req("E2")
async def test_one_that_has_proven_nothing_is_nobody() -> None:
    server = FakeChannel(answers(wrapped(NONCE)))
    await relay(server.channel, stranger_link().channel, ASKED)
    sent = envelope(server)
    assert (sent.proven, sent.zone) == (False, b"")


async def test_an_enrolment_link_proves_nobody_whatever_peer_it_has() -> None:
    server = FakeChannel(answers(wrapped(NONCE)))
    link = member_link()
    link.link_class = LinkClass.ENROLMENT
    await relay(server.channel, link.channel, ASKED)
    assert (envelope(server).proven, envelope(server).zone) == (False, b"")


async def test_the_request_arrives_as_it_was_sent_but_for_its_number() -> None:
    server = FakeChannel(answers(wrapped(NONCE)))
    await relay(server.channel, member_link().channel, ASKED)
    sent = envelope(server)
    assert codec.decode(FrameType(sent.inner_type), sent.inner) == replace(ASKED, call=0)


@pytest.mark.parametrize("server", [None, "ended"])
async def test_without_a_server_it_is_asked_again_later(server: str | None) -> None:
    link = None
    if server is not None:
        gone = FakeChannel()
        gone.lose()
        link = gone.channel
    answer = await relay(link, member_link().channel, ASKED)
    assert isinstance(answer, Refused)
    assert answer.reason == "unavailable"
    assert answer.text
    assert answer.retry_after == RETRY_AFTER


async def test_a_server_that_goes_meanwhile_is_asked_again_later() -> None:
    server = FakeChannel()

    async def leaving(_channel: Channel, _message: Message) -> Message:
        server.lose()
        await asyncio.Event().wait()
        return Done()

    server.answering = leaving
    answer = await relay(server.channel, member_link().channel, ASKED)
    assert isinstance(answer, Refused)
    assert answer.reason == "unavailable"
    assert answer.text
    assert answer.retry_after == RETRY_AFTER


async def test_a_refusal_of_the_envelope_is_the_answer() -> None:
    refused = Refused(reason="not-allowed", text="no")
    server = FakeChannel(answers(refused))
    assert await relay(server.channel, member_link().channel, ASKED) == refused


@pytest.mark.parametrize("inner", [Refused(reason="kind"), NONCE])
async def test_every_answer_that_fits_is_handed_on(inner: Message) -> None:
    server = FakeChannel(answers(wrapped(inner)))
    assert await relay(server.channel, member_link().channel, ASKED) == inner


@pytest.mark.parametrize(
    "inner",
    [
        Done(),
        Pong(id=1),
        Pending(fingerprint="ab", retry_after=1.0),
        NonceGet(kind="client-tls", spki=b""),
        Enrol(kind="x", csr=b"", spki=b"", nonce=bytes(32), signature=b""),
        Report(),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_what_is_no_answer_to_the_request_is_refused(inner: Message) -> None:
    server = FakeChannel(answers(wrapped(inner)))
    answer = await relay(server.channel, member_link().channel, ASKED)
    assert isinstance(answer, Refused)
    assert answer.reason == "envelope"
    assert answer.text == f"{type(inner).__name__} is no answer to this"


@pytest.mark.parametrize(
    ("kind", "inner"),
    [(255, b""), (NONCE.FRAME, b""), (NONCE.FRAME, b"\xff" * 40), (NONCE.FRAME, b"\x80")],
)
async def test_what_is_no_message_is_refused(kind: int, inner: bytes) -> None:
    server = FakeChannel(answers(Relayed(inner_type=kind, inner=inner)))
    answer = await relay(server.channel, member_link().channel, ASKED)
    assert isinstance(answer, Refused)
    assert answer.reason == "envelope"
    assert answer.text
