"""A peer that has proven who it is, or nobody, and lies in what it says: on real sockets.

Each lie costs at most its request or its connection, and one line of the log; whoever is honest
is served before and after it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.runtime.listener import Listener
from agents.server.app import Server
from pki import certificates, enrolment, keys
from pki.bundle import make_bundle
from pki.certificates import Kind
from pki.errors import PKIError
from pki.keys import PrivateKey
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.link import BINDING_LABEL, Closed
from protocol.messages import (
    Enrol,
    Issued,
    Message,
    Nonce,
    NonceGet,
    PeerHello,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
    Report,
)
from tests.fuzz.hostile import Hostile, hostile, open_server
from tests.fuzz.names import NAMES
from tests.fuzz.requests import REQUESTS
from tests.support.components import Component
from tests.support.links import on_uvloop
from tests.support.logs import logged
from tests.support.servers import shown

pytestmark = [pytest.mark.sockets, pytest.mark.req("E4", "E5")]

KIND = Kind.CLIENT_TLS
Lines = list[dict[str, object]]


@dataclass
class Town:
    """A server, its port, and an honest client."""

    server: Server
    listener: Listener
    lines: Lines

    @property
    def roots(self) -> tuple[bytes, ...]:
        return self.server.trust.roots

    def stranger(self) -> Any:  # noqa: ANN401 - a context manager of a Hostile
        return hostile(self.listener.port, self.roots)

    def member(self, chain: tuple[bytes, ...], key: PrivateKey) -> Any:  # noqa: ANN401
        return hostile(self.listener.port, self.roots, shown=(chain, key))

    async def request(
        self,
        peer: Hostile,
        who: Component,
        key: PrivateKey,
        *,
        csr: bytes | None = None,
        host: str = "host",
    ) -> Enrol:
        """An honest request on this link, unless told otherwise."""
        given = await peer.ask(NonceGet(kind=KIND.value, spki=who.spki))
        assert isinstance(given, Nonce)
        csr = csr or certificates.make_request(key, KIND)
        signature = enrolment.sign_request(
            who.identity,
            deployment=self.server.trust.deployment,
            issuer=shown(self.server),
            nonce=given.nonce,
            csr=csr,
            binding=peer.link._tls.exporter(BINDING_LABEL, 32),
        )
        return Enrol(
            kind=KIND.value,
            csr=csr,
            spki=who.spki,
            nonce=given.nonce,
            signature=signature,
            host=host,
        )

    async def enrolled(self, who: Component) -> tuple[tuple[bytes, ...], PrivateKey]:
        """The chain and key of a component that has asked honestly."""
        key = keys.generate()
        async with self.stranger() as peer:
            answer = await peer.ask(await self.request(peer, who, key))
        assert isinstance(answer, Issued), answer
        return tuple(answer.chain), key

    async def works(self) -> None:
        """Somebody honest is served."""
        await self.enrolled(Component())

    def warnings(self) -> Lines:
        return [line for line in self.lines if line["level"] in ("warning", "error")]


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    async with open_server(folder) as (server, listener):
        with logged() as lines:
            yield Town(server, listener, lines)


async def costs_a_request(
    place: Town, lie: Callable[[Hostile, Component], Awaitable[Message | Closed]]
) -> Refused:
    """A member tells a lie; it is refused, the link lives, nothing was kept, others are served."""
    who = Component()
    chain, key = await place.enrolled(who)
    async with place.member(chain, key) as peer:
        assert isinstance(await peer.ask(Ping(id=1, sender=who.id)), Pong)
        rows = [(row.record.id, row.record.host) for row in place.server.registry.rows()]
        acks = dict(place.server.acknowledgements.of(place.server.authority.slot))
        place.lines.clear()
        answer = await lie(peer, who)
        assert isinstance(answer, Refused), answer
        (line,) = place.warnings()
        assert line["event"] in ("request.refused", "enrolment.refused")
        assert line["reason"] == answer.text
        if line["event"] == "request.refused":  # which link, whose key, what, and what to do
            assert line["link"]
            assert line["fingerprint"] == keys.key_id(key.public_key()).hex()
            assert who.id.hex() in str(line["expected"])
            assert line["remedy"]
        assert [(row.record.id, row.record.host) for row in place.server.registry.rows()] == rows
        assert place.server.acknowledgements.of(place.server.authority.slot) == acks
        assert isinstance(await peer.ask(Ping(id=2, sender=who.id)), Pong)
    await place.works()
    return answer


async def costs_the_link(peer: Hostile, code: CloseCode) -> Closed:
    """The link ends with this code."""
    end = await peer.hear()
    assert isinstance(end, Closed), end
    assert end.code is code, end
    return end


OTHER = Component()


@on_uvloop
class TestAnIdThatIsNotTheSenders:
    async def test_in_a_ping(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:
            answer = await costs_a_request(
                place, lambda peer, who: peer.ask(Ping(id=3, sender=OTHER.id))
            )
            assert answer.reason == "identity"

    async def test_in_an_acknowledgement(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:
            last = place.server.authority.chain.last
            ack = OTHER.ack(place.server.authority.slot, last.n, last.id)
            answer = await costs_a_request(place, lambda peer, who: peer.ask(ack))
            assert answer.reason == "identity"

    async def test_in_an_acknowledgement_with_a_signature_of_ones_own(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:
            last = place.server.authority.chain.last

            async def lie(peer: Hostile, who: Component) -> Message | Closed:
                own = who.ack(place.server.authority.slot, last.n, last.id)
                return await peer.ask(msgspec.structs.replace(own, spki=OTHER.spki))

            assert (await costs_a_request(place, lie)).reason == "signature"

    async def test_in_a_request_for_a_certificate(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:

            async def lie(peer: Hostile, who: Component) -> Message | Closed:
                return await peer.ask(await place.request(peer, OTHER, keys.generate()))

            assert (await costs_a_request(place, lie)).reason == "identity"

    async def test_in_a_report_of_lost_neighbours(self, tmp_path: Path) -> None:
        """Of somebody who is no neighbour nothing is believed, and nobody is removed."""
        async with town(tmp_path) as place:
            one, two = Component(), Component()
            chain, key, token = *await place.enrolled(two), b""
            for who, address in ((one, "127.0.1.1"), (two, "10.9.9.9")):
                chain, key = await place.enrolled(who)
                async with place.member(chain, key) as peer:
                    answer = await peer.ask(
                        Register(host="h", version="1", port=1, address=address, full=True)
                    )
                    assert isinstance(answer, Registered)
                    token = answer.token
            async with place.member(chain, key) as peer:
                answer = await peer.ask(Register(token=token, lost=[one.id, two.id, OTHER.id]))
                assert isinstance(answer, Registered)
            rows = [place.server.registry.row(who.id) for who in (one, two)]
            assert all(row is not None and row.present for row in rows)

    async def test_what_a_client_may_not_say_at_all(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:
            chain, key = await place.enrolled(Component())
            for message in (Report(), PeerHello(revision=1, address="a", port=1)):
                async with place.member(chain, key) as peer:
                    place.lines.clear()
                    await peer.ask(Ping(id=1, sender=b""))
                    await peer.say_fields(message.FRAME, msgspec.to_builtins(message))
                    await costs_the_link(peer, CloseCode.NOT_ALLOWED)
            await place.works()


@on_uvloop
class TestReplay:
    @pytest.mark.req("B15")
    async def test_a_captured_request_on_a_second_connection(self, tmp_path: Path) -> None:
        async with town(tmp_path) as place:
            who = Component()
            async with place.stranger() as first:
                captured = await place.request(first, who, keys.generate())
                async with place.stranger() as second:  # before its owner has sent it
                    place.lines.clear()
                    answer = await second.ask(captured)
                    assert isinstance(answer, Refused)
                    assert "this link" in answer.text
                    (line,) = place.warnings()
                    assert line["event"] == "enrolment.refused"
                    assert line["fingerprint"] == who.key_id.hex()
                again = await place.request(first, who, keys.generate())
                assert isinstance(await first.ask(again), Issued)
                async with place.stranger() as second:  # and after
                    answer = await second.ask(again)
                    assert isinstance(answer, Refused)
                    assert answer.reason == "nonce"
                assert isinstance(await first.ask(again), Refused)
            now = place.server.clock.now()
            issued = await place.server.issued.unexpired(now, holders=[who.id])
            assert len(issued) == 1


@on_uvloop
class TestRequests:
    @pytest.mark.req("A7")
    @pytest.mark.parametrize("what", REQUESTS)
    async def test_a_request_with(self, tmp_path: Path, what: str) -> None:
        async with town(tmp_path) as place:
            key, who = keys.generate(), Component()
            async with place.stranger() as peer:
                request = await place.request(peer, who, key, csr=REQUESTS[what](key) or b"")
                if what == "nothing":
                    request = msgspec.structs.replace(request, csr=b"")
                place.lines.clear()
                answer = await peer.ask(request)
                assert isinstance(answer, Refused), answer
                (line,) = place.warnings()
                assert line["event"] == "enrolment.refused"
                assert line["fingerprint"] == who.key_id.hex()
                # The same link is good for an honest request.
                again = await place.request(peer, who, key)
                assert isinstance(await peer.ask(again), Issued)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


@on_uvloop
class TestNames:
    @pytest.mark.parametrize("what", NAMES)
    async def test_a_host_named_like(self, tmp_path: Path, what: str) -> None:
        """It is kept as text and shown as text; it is no path, no markup and no line."""
        name = NAMES[what]
        async with town(tmp_path) as place:
            who = Component()
            key = keys.generate()
            async with place.stranger() as peer:
                answer = await peer.ask(await place.request(peer, who, key, host=name))
            assert isinstance(answer, Issued)
            files = names_in(tmp_path)
            async with place.member(tuple(answer.chain), key) as peer:
                registered = await peer.ask(
                    Register(host=name, version=name, port=1, address="127.0.1.1", full=True)
                )
                assert isinstance(registered, Registered)
                row = place.server.registry.row(who.id)
                assert row is not None
                assert (row.record.host, row.record.version) == (name, name)
                # An address is no free text.
                wrong = await peer.ask(Register(token=registered.token, address=name, port=1))
                assert isinstance(wrong, Refused)
                row = place.server.registry.row(who.id)
                assert row is not None
                assert row.record.claimed == "127.0.1.1"
            await place.works()
            made = names_in(tmp_path) - files
            assert all(one.startswith(("server.db", "ledger", "pki")) for one in made)
            assert all(line["level"] != "error" for line in place.lines)

    @pytest.mark.parametrize("field", ["host", "version", "address"])
    async def test_5000_bytes_in_a_name_of_a_registration(self, tmp_path: Path, field: str) -> None:
        async with town(tmp_path) as place:
            chain, key = await place.enrolled(Component())
            async with place.member(chain, key) as peer:
                place.lines.clear()
                fields: dict[str, Any] = {"call": 1, "port": 1, "full": True, field: "x" * 5000}
                await peer.say_fields(FrameType.REGISTER, fields)
                await costs_the_link(peer, CloseCode.PROTOCOL_ERROR)
            assert len(place.warnings()) <= 1
            assert place.server.registry.rows() == []
            await place.works()

    @pytest.mark.parametrize("field", ["kind", "host", "secret"])
    async def test_5000_bytes_in_a_name_of_a_request(self, tmp_path: Path, field: str) -> None:
        async with town(tmp_path) as place:
            async with place.stranger() as peer:
                request = await place.request(peer, Component(), keys.generate())
                fields = msgspec.to_builtins(request, builtin_types=(bytes,))
                await peer.say_fields(FrameType.ENROL, fields | {field: "x" * 5000})
                await costs_the_link(peer, CloseCode.PROTOCOL_ERROR)
            await place.works()

    async def test_a_setting_of_a_bundle_is_no_path_and_no_novel(self, tmp_path: Path) -> None:
        async with open_server(tmp_path) as (server, _):
            chain = server.authority.chain
            key = server.authority.issuer().key
            for name, text in (("x" * 65, "a"), ("", "a"), ("a", "x" * 5000)):
                with pytest.raises(PKIError):
                    make_bundle(key, [chain], [], {name: text})
